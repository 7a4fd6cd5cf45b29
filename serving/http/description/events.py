"""Events as `POST /v1/events` takes them, and its answer. `schemas.json_events` is what checks them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.avro_decoder_kernel import MAX_ID_BYTES
from schemas.json_events import INTEGERS, MAX_LONG_BYTES, NUMBERS, TOPIC_OF_TYPE
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


class OrderLine(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="forbid")

    item: Text = Field(description="Item id", examples=["tea"])
    quantity: Quantity | None = Field(None, description="Units bought; 1 by default", examples=[2])
    price: Price | None = Field(None, description="Unit price before discount", examples=[4.5])
    discount: Discount | None = Field(None, description="Discount on the line; stays in the log")
    category: Text | None = Field(None, description="Category path, joined by `/`", examples=["drinks/tea"])
    brand: Text | None = Field(None, description="Brand", examples=["Leaf"])


class Event(BaseModel):
    """One event: its `type` says which of the fields it may have (docs/events.md).

    A field that is null counts as left out, but in a `product`, where it is cleared. Texts are bounded in bytes of
    UTF-8: ids and names up to 256, `title`, `image_url` and `query` up to 2,048.
    """

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"type": "view", "user": "ann", "item": "tea"}]}
    )

    type: str = Field(description="What happened", json_schema_extra={"enum": list(TOPIC_OF_TYPE)})
    event_id: Text = Field(
        default_factory=str, description="Unique name, not of products; a second event with it is dropped"
    )
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
    user: Text | None = Field(None, description="Id of a known visitor", examples=["ann"])
    session: Text | None = Field(None, description="Id of an anonymous visitor; ignored where there is a user")
    item: Text | None = Field(None, description="Item id; every event but a search and an order needs it")
    country: Text | None = Field(None, description="The visitor's country, ISO 3166", examples=["DE"])
    context: dict[str, str] | None = Field(None, description="Anything else, such as an answer's `attribution`")
    price: Price | None = Field(None, description="Unit price", examples=[4.5])
    category: Text | None = Field(
        None, description="Category path, outermost first, joined by `/`", examples=["drinks/tea"]
    )
    brand: Text | None = Field(None, description="Brand", examples=["Leaf"])
    query: LongText | None = Field(None, description="Of a `search`: what was searched for", examples=["green tea"])
    stars: Stars | None = Field(None, description="Of a `rating`: 1 to 5 stars")
    order_id: Text | None = Field(None, description="Of a `purchase`: the shop's order number", examples=["o-17"])
    lines: list[OrderLine] = Field(default_factory=list, description="Of a `purchase`: its order lines", min_length=1)
    quantity: Quantity | None = Field(None, description="Of a `purchase` without `lines`: units bought; 1 by default")
    discount: Discount | None = Field(None, description="Of a `purchase` without `lines`")
    title: LongText | None = Field(None, description="Of a `product`: its title", examples=["Green tea"])
    stock: Stock | None = Field(None, description="Of a `product`: units in stock; 0 hides it; null: not counted")
    image_url: LongText | None = Field(None, description="Of a `product`: address of its picture")
    seller: Text | None = Field(None, description="Of a `product`: who sells it")
    margin: Margin | None = Field(None, description="Of a `product`: margin as a share of the price", examples=[0.3])
    attributes: dict[str, str | None] | None = Field(
        None, description="Of a `product`: `attr.NAME` in conditions; null clears one", examples=[{"organic": "yes"}]
    )
    replace: bool | None = Field(
        None,
        description="Of a `product`: whether it is what the event says, and no more; else fields that are left"
        " out stay as they are",
    )
    request_id: Text | None = Field(None, description="Of an `impression`: the answer it belongs to")
    position: Position | None = Field(None, description="Of an `impression`: place in the list, from 0")
    source: Text | None = Field(None, description="Of an `impression`: what proposed the item")
    arm: Text | None = Field(None, description="Of an `impression`: experiment arms of the answer")
    propensity: Propensity | None = Field(None, description="Of an `impression`: probability of the item at this place")
    anchor: Text | None = Field(None, description="Of an `impression`: the answer's `anchor`")
    generation: Text | None = Field(None, description="Of an `impression`: the answer's `generation`")


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
