"""Events as `POST /v1/events` takes them, and its answer. `schemas.json_events` is what checks them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from schemas.avro_decoder_kernel import MAX_ID_BYTES
from schemas.json_events import INTEGERS, MAX_LONG_BYTES, NUMBERS
from schemas.validate import EARLIEST_MS
from serving.http.description.errors import EventError

Text = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
LongText = Annotated[str, Field(min_length=1, max_length=MAX_LONG_BYTES)]


def _bounds(name: str) -> Any:
    """Return the bounds of a number, for its type."""
    low, high = (NUMBERS | INTEGERS)[name]
    return Field(ge=low, le=high)


Price = Annotated[float, _bounds("price")]
Discount = Annotated[float, _bounds("discount")]
Quantity = Annotated[float, _bounds("quantity")]
Stars = Annotated[float, _bounds("stars")]
Margin = Annotated[float, _bounds("margin")]
Stock = Annotated[int, _bounds("stock")]
Position = Annotated[int, _bounds("position")]
Propensity = Annotated[float, _bounds("propensity")]


TYPE = Field(description="What happened")
ITEM = Field(description="Item id", examples=["tea"])


class OrderLine(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="forbid")

    item: Text = Field(description="Item id", examples=["tea"])
    quantity: Quantity | None = Field(None, description="Units bought; 1 by default", examples=[2])
    price: Price | None = Field(None, description="Unit price before discount", examples=[4.5])
    discount: Discount | None = Field(None, description="Discount on the line; stays in the log")
    category: Text | None = Field(None, description="Category path, joined by `/`", examples=["drinks/tea"])
    brand: Text | None = Field(None, description="Brand", examples=["Leaf"])


class _Event(BaseModel):
    """What all events have."""

    model_config = ConfigDict(extra="forbid")

    ts_ms: int = Field(
        default_factory=int,
        description="When it happened, milliseconds since 1970 UTC, at most an hour ahead; now by default",
        ge=EARLIEST_MS,
        lt=2**53,
        examples=[1796070000000],
    )
    ts: str = Field(
        default_factory=str, description="The same as ISO 8601, instead of `ts_ms`", examples=["2026-11-30T19:00:00Z"]
    )


class _NamedEvent(_Event):
    """An event that counts once."""

    event_id: Text = Field(default_factory=str, description="Unique name; a second event with it is dropped")


class _VisitorEvent(_NamedEvent):
    """What a visitor did: `user` or `session` is needed."""

    user: Text | None = Field(None, description="Id of a known visitor", examples=["ann"])
    session: Text | None = Field(None, description="Id of an anonymous visitor; ignored where there is a user")
    country: Text | None = Field(None, description="The visitor's country, ISO 3166", examples=["DE"])
    context: dict[str, str] | None = Field(None, description="Anything else, such as an answer's `attribution`")
    price: Price | None = Field(None, description="Unit price before discount", examples=[4.5])
    category: Text | None = Field(
        None, description="Category path of the item, outermost first, joined by `/`", examples=["drinks/tea"]
    )
    brand: Text | None = Field(None, description="Brand of the item", examples=["Leaf"])


class ViewEvent(_VisitorEvent):
    """A visitor looked at an item."""

    type: Literal["view"] = TYPE
    item: Text = ITEM


class InteractionEvent(_VisitorEvent):
    """A visitor did something with an item."""

    type: Literal["click", "add_to_cart", "remove_from_cart", "wishlist", "share", "return", "dislike"] = TYPE
    item: Text = ITEM
    query: LongText | None = Field(None, description="What was searched for before", examples=["green tea"])


class SearchEvent(_VisitorEvent):
    """A visitor searched."""

    type: Literal["search"] = TYPE
    query: LongText | None = Field(None, description="What was searched for", examples=["green tea"])
    item: Text | None = Field(None, description="The item that was chosen, if any", examples=["tea"])


class RatingEvent(_VisitorEvent):
    """A visitor rated an item."""

    type: Literal["rating"] = TYPE
    item: Text = ITEM
    stars: Stars = Field(description="1 to 5 stars", examples=[4])


class PurchaseEvent(_VisitorEvent):
    """A visitor bought: an order with `lines`, or one line whose fields stand in the event."""

    type: Literal["purchase"] = TYPE
    order_id: Text | None = Field(None, description="The shop's order number", examples=["o-17"])
    lines: list[OrderLine] = Field(default_factory=list, description="Order lines; else `item` is needed", min_length=1)
    item: Text | None = Field(None, description="Of an order of one line: the item", examples=["tea"])
    quantity: Quantity | None = Field(None, description="Of an order of one line: units bought; 1 by default")
    discount: Discount | None = Field(None, description="Of an order of one line: discount; stays in the log")


class ProductEvent(_Event):
    """A product changed: fields that are left out stay as they are, null clears one."""

    type: Literal["product"] = TYPE
    item: Text = ITEM
    title: LongText | None = Field(None, description="Title; an item without one is in no list", examples=["Green tea"])
    category: Text | None = Field(
        None, description="Category path, outermost first, joined by `/`", examples=["drinks/tea"]
    )
    brand: Text | None = Field(None, description="Brand", examples=["Leaf"])
    price: Price | None = Field(None, description="Unit price", examples=[4.5])
    stock: Stock | None = Field(None, description="Units in stock; 0 hides it; null: not counted", examples=[80])
    image_url: LongText | None = Field(None, description="Address of its picture")
    seller: Text | None = Field(None, description="Who sells it")
    margin: Margin | None = Field(None, description="Margin as a share of the price", examples=[0.3])
    attributes: dict[str, str | None] | None = Field(
        None, description="`attr.NAME` in conditions; null clears one", examples=[{"organic": "yes"}]
    )
    replace: bool | None = Field(None, description="Whether the product is what the event says, and no more")


class ProductGoneEvent(_Event):
    """A product left the catalogue."""

    type: Literal["product_gone"] = TYPE
    item: Text = ITEM


class ImpressionEvent(_NamedEvent):
    """An item was shown. A server writes these itself; send them only if the shop decides what is shown."""

    type: Literal["impression"] = TYPE
    item: Text = ITEM
    request_id: Text = Field(description="`request_id` of the answer it belongs to")
    position: Position = Field(description="Place in the list, from 0", examples=[0])
    source: Text = Field(description="What proposed the item", examples=["cooccurrence"])
    user: Text | None = Field(None, description="Id of a known visitor", examples=["ann"])
    session: Text | None = Field(None, description="Id of an anonymous visitor")
    arm: Text | None = Field(None, description="Experiment arms of the answer")
    propensity: Propensity | None = Field(None, description="Probability of the item at this place")
    anchor: Text | None = Field(None, description="`anchor` of the answer")
    generation: Text | None = Field(None, description="`generation` of the answer")


class ErasureEvent(_NamedEvent):
    """A user is to be erased."""

    type: Literal["erasure"] = TYPE
    user: Text = Field(description="Id of the user", examples=["ann"])


AnyEvent = Annotated[
    ViewEvent | InteractionEvent | SearchEvent | RatingEvent | PurchaseEvent | ProductEvent | ProductGoneEvent
    | ImpressionEvent | ErasureEvent,
    Field(discriminator="type"),
]  # fmt: skip


class Event(RootModel[AnyEvent]):
    """One event: its `type` says which fields it has (docs/events.md).

    A field that is null counts as left out, but in a `product`, where it is cleared. Texts are bounded in bytes of
    UTF-8: ids and names up to 256, `title`, `image_url` and `query` up to 2,048.
    """


class EventsTaken(BaseModel):
    """The events are durable."""

    accepted: int = Field(description="How many events are taken", ge=0, examples=[2])
    event_ids: list[str | None] = Field(
        description="Ids in the events' order; null for products and, with `partial`, for refused events",
        examples=[["3387799063dc52598a5f6a200a277f68", None]],
    )
    errors: list[EventError] = Field(
        default_factory=list, max_length=100, description="With `partial`: the first 100 refused events"
    )
    n_errors: int = Field(
        default_factory=int, ge=0, description="With `partial`: how many events are refused", examples=[0]
    )
