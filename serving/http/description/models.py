"""What REST takes and answers beside recommendations, as models: they describe, and nothing is checked by them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.json_events import TOPIC_OF_TYPE
from serving.request.answer_schema import Answer
from serving.request.requests import RecommendRequest
from serving.rules.model import Book, Placement


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorDetail(_Schema):
    """What is wrong."""

    field: str = Field(description="The field that is wrong, empty where it is none", examples=["count"])
    message: str = Field(
        description="What is wrong with it, in words", examples=["Input should be less than or equal to 200"]
    )


class Error(_Schema):
    """The form of all errors."""

    error: ErrorDetail


class EventError(_Schema):
    """Why one event of a call is refused."""

    index: int = Field(description="Place of the event in the call, from 0", ge=0, examples=[1])
    field: str = Field(description="Its field that is wrong, empty where it is the whole event", examples=["ts_ms"])
    message: str = Field(description="What is wrong with it, in words", examples=["is needed"])


class EventsRefused(Error):
    """Nothing of the call is taken; each event at fault is named."""

    errors: list[EventError] = Field(
        default=[], max_length=100, description="The first 100 events at fault; absent where it is the call itself"
    )
    n_errors: int = Field(default=0, ge=0, description="How many events are at fault", examples=[1])


class EventsUnavailable(Error):
    """Nothing is known to be taken: send the events again, with these ids, and each counts once."""

    event_ids: list[str | None] = Field(default=[], description="Ids of the events, in order, where they were read")


class EventsTaken(_Schema):
    """The events are durable."""

    accepted: int = Field(description="How many events are taken", ge=0, examples=[2])
    event_ids: list[str | None] = Field(
        description="Ids in the events' order; null for products and, with `partial`, for refused events",
        examples=[["3387799063dc52598a5f6a200a277f68", None]],
    )
    errors: list[EventError] = Field(
        default=[], max_length=100, description="With `partial`: the first 100 refused events"
    )
    n_errors: int = Field(default=0, ge=0, description="With `partial`: how many events are refused", examples=[0])


class OrderLine(_Schema):
    """One line of an order."""

    item: str = Field(description="Item id", examples=["tea"], min_length=1)
    quantity: float | None = Field(None, description="Units bought; 1 by default", gt=0, le=1e6)
    price: float | None = Field(None, description="Unit price before discount", ge=0, le=1e9)
    discount: float | None = Field(None, description="Discount on the line; stays in the log")
    category: str | None = Field(None, description="Category path, joined by `/`")
    brand: str | None = Field(None, description="Brand")


class Event(BaseModel):
    """One event: its `type` says which of the fields it may have (docs/events.md)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "view", "user": "ann", "item": "tea"}]})

    type: str = Field(description="What happened", json_schema_extra={"enum": list(TOPIC_OF_TYPE)})
    event_id: str | None = Field(None, description="Unique name; a second event with it is dropped", min_length=1)
    ts_ms: int | None = Field(
        None, description="When it happened, milliseconds since 1970 UTC; default: now", ge=946_684_800_000
    )
    ts: str | None = Field(None, description="The same as ISO 8601, instead of `ts_ms`")
    user: str | None = Field(None, description="Id of a known visitor", min_length=1)
    session: str | None = Field(None, description="Id of an anonymous visitor", min_length=1)
    item: str | None = Field(None, description="Item id", min_length=1)
    country: str | None = Field(None, description="The visitor's country, ISO 3166")
    context: dict[str, str] | None = Field(None, description="Anything else, such as an answer's `attribution`")
    price: float | None = Field(None, description="Unit price", ge=0, le=1e9)
    category: str | None = Field(None, description="Category path, outermost first, joined by `/`")
    brand: str | None = Field(None, description="Brand")
    query: str | None = Field(None, description="Of a `search`: what was searched for")
    stars: float | None = Field(None, description="Of a `rating`: 1 to 5 stars", ge=1, le=5)
    order_id: str | None = Field(None, description="Of a `purchase`: the shop's order number")
    lines: list[OrderLine] | None = Field(None, description="Of a `purchase`: its order lines", min_length=1)
    quantity: float | None = Field(None, description="Of a `purchase` with one line: units bought", gt=0, le=1e6)
    discount: float | None = Field(None, description="Of a `purchase` with one line: discount")
    title: str | None = Field(None, description="Of a `product`: its title, up to 2,048 bytes")
    stock: int | None = Field(None, description="Of a `product`: units in stock; 0 hides it")
    image_url: str | None = Field(None, description="Of a `product`: address of its picture")
    seller: str | None = Field(None, description="Of a `product`: who sells it")
    margin: float | None = Field(None, description="Of a `product`: margin as a share of the price")
    attributes: dict[str, str] | None = Field(None, description="Of a `product`: `attr.NAME` in conditions")
    request_id: str | None = Field(None, description="Of an `impression`: the answer it belongs to")
    position: int | None = Field(None, description="Of an `impression`: place in the list, from 0", ge=0)
    source: str | None = Field(None, description="Of an `impression`: what proposed the item")
    arm: str | None = Field(None, description="Of an `impression`: experiment arms")
    propensity: float | None = Field(None, description="Of an `impression`: probability of the place", ge=0, le=1)
    anchor: str | None = Field(None, description="Of an `impression`: the answer's anchor")
    generation: str | None = Field(None, description="Of an `impression`: the answer's generation")


class Users(_Schema):
    """Users that were seen lately."""

    users: list[str] = Field(description="Ids, newest first, at most 50", examples=[["ann"]])


class UserEvent(_Schema):
    """One event of a user's history."""

    item: str = Field(description="Item id; empty where it is not known", examples=["tea"])
    title: str = Field(description="Title of the item", examples=["Green tea"])
    image_url: str = Field(description="Address of its picture, empty where there is none")
    kind: str = Field(description="What the user did", examples=["view"])
    ts_ms: int = Field(description="When, milliseconds since 1970 UTC")


class User(_Schema):
    """What is known of a user."""

    user: str = Field(description="User id", examples=["ann"])
    n_events: int = Field(description="Events ever folded", ge=0)
    likes: list[str] = Field(description="Categories and brands the user prefers", examples=[["Leaf"]])
    events: list[UserEvent] = Field(description="Latest events, newest first")


class Neighbour(_Schema):
    """An item that occurs together with another."""

    item: str = Field(description="Item id; empty where it is not known")
    title: str = Field(description="Title of the item")
    weight: float = Field(description="Weight of the pair")


class Item(_Schema):
    """What is known of an item."""

    item: str = Field(description="Item id", examples=["tea"])
    title: str = Field(description="Title; the id where there is none", examples=["Green tea"])
    category: str = Field(description="Category path, empty where it is not known")
    brand: str = Field(description="Brand, empty where it is not known")
    price: float | None = Field(description="Unit price")
    stock: int | None = Field(description="Units in stock; null: not counted")
    gone: bool = Field(description="Whether it has left the catalogue")
    seller: str = Field(description="Who sells it, empty where it is not known")
    margin: float | None = Field(description="Margin as a share of the price")
    image_url: str = Field(description="Address of its picture, empty where there is none")
    attributes: dict[str, str] = Field(description="Attributes by name")
    views: int = Field(description="Views ever folded")
    carts: int = Field(description="Additions to carts ever folded")
    purchases: int = Field(description="Purchases ever folded")
    popularity_short: float = Field(description="Event weight, decayed by the short half-life")
    popularity_long: float = Field(description="Event weight, decayed by the long half-life")
    trending: bool = Field(description="Whether it trends")
    first_ms: int = Field(description="When it was first seen, milliseconds since 1970 UTC")
    neighbours: list[Neighbour] = Field(description="Items it occurs together with, strongest first, at most 20")


class Live(_Schema):
    """Counters and ages of this moment."""

    at_ms: int = Field(description="This moment, milliseconds since 1970 UTC")
    events: int = Field(description="Events ever folded")
    weight: int = Field(description="Their weights, summed")
    newest_event_age_s: float | None = Field(description="Age of the newest event, in seconds")
    answers: int = Field(description="Answers of this server since it began")
    fallbacks: dict[str, int] = Field(description="The same by `fallback`")
    items: int = Field(description="Items in the catalogue")
    generation: str = Field(description="Generation of rows in use")
    anchor: str | None = Field(description="Version of the nightly model in use")
    rules_version: int = Field(description="Version of the book of rules in use")
    without_store: bool = Field(description="Whether answers come from memory because Redis is away")


class Health(_Schema):
    """The server is alive."""

    status: Literal["alive"]


class Readiness(_Schema):
    """Whether the server has something to answer from."""

    ready: bool = Field(description="Whether it has")
    items: int = Field(description="Items in the catalogue", ge=0)
    skipped_rules: list[str] = Field(description="Ids of rules that are left out because they fail")


class LiveBook(BaseModel):
    """The live book of rules."""

    version: int = Field(description="Its version; 0: none has been put", ge=0)
    book: Book = Field(description="The book")
    author: str | None = Field(None, description="Who put it there")
    note: str | None = Field(None, description="What the author says of it")
    at_ms: int | None = Field(None, description="When, milliseconds since 1970 UTC")
    all_placements: dict[str, Placement] = Field(description="All placements, built-in ones among them")
    skipped_rules: dict[str, str] = Field(description="Rules that are left out because they fail, and why")


class BookVersion(BaseModel):
    """One version of the book."""

    version: int = Field(description="Its number", ge=1)
    book: Book = Field(description="The book")
    author: str = Field(description="Who put it there")
    note: str = Field(description="What the author says of it")
    at_ms: int = Field(description="When, milliseconds since 1970 UTC")


class BookHistory(BaseModel):
    """The newest versions of the book."""

    versions: list[BookVersion] = Field(description="Newest first, at most 50")


class BookPut(BaseModel):
    """The book is live."""

    version: int = Field(description="Its version", ge=1, examples=[4])


class BookRead(BaseModel):
    """The book, as it was understood."""

    book: Book = Field(description="The book, without what is as by default")


class Finding(BaseModel):
    """One thing that is odd about a book."""

    model_config = ConfigDict(extra="allow")

    level: str | None = Field(None, description="How bad it is")
    rule: str | None = Field(None, description="Id of the rule")
    message: str | None = Field(None, description="What is odd about it")


class Findings(BaseModel):
    """What is odd about a book."""

    findings: list[Finding]


class PreviewRequest(BaseModel):
    """A request to be answered by the live book and by another."""

    book: Book = Field(Book(), description="The other book")
    request: RecommendRequest = Field(RecommendRequest(), description="The request")
    at: str = Field("now", description="For which time: `now`, or ISO 8601", examples=["2026-11-01T12:00:00Z"])


class Preview(BaseModel):
    """The answers by both books, with the rules' traces."""

    before: Answer = Field(description="By the live book")
    after: Answer = Field(description="By the other book")
    skipped_rules: dict[str, str] = Field(description="Rules of the other book that fail, and why")


class GraphQLRequest(BaseModel):
    """A query."""

    query: str = Field(description="GraphQL", examples=['{ recommend(user: "ann", count: 3) { items { item } } }'])
    variables: dict[str, Any] | None = Field(None, description="Values of its variables")
    operationName: str | None = Field(None, description="Which of its operations to run")


class GraphQLAnswer(BaseModel):
    """The answer to a query; fields that failed are null and named in `errors`."""

    data: dict[str, Any] | None = Field(None, description="Fields that were asked for")
    errors: list[dict[str, Any]] | None = Field(None, description="What went wrong, with `extensions.code`")
    extensions: dict[str, Any] | None = Field(None, description="Not used")
