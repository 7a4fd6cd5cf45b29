"""What the explorer shows of visitors and items."""

from pydantic import BaseModel, Field


class Users(BaseModel):
    """Users that were seen lately."""

    users: list[str] = Field(description="Ids, newest first, at most 50", examples=[["ann"]])


class HistoryEvent(BaseModel):
    """One event of a user's history."""

    item: str = Field(description="Item id; empty where it is not known", examples=["tea"])
    title: str = Field(description="Title of the item", examples=["Green tea"])
    image_url: str = Field(description="Address of its picture, empty where there is none")
    kind: str = Field(description="What the user did", examples=["view"])
    ts_ms: int = Field(description="When, milliseconds since 1970 UTC")


class User(BaseModel):
    """What is known of a user."""

    user: str = Field(description="User id", examples=["ann"])
    n_events: int = Field(description="Events ever folded", ge=0)
    likes: list[str] = Field(description="Categories and brands the user prefers", examples=[["Leaf"]])
    events: list[HistoryEvent] = Field(description="Latest events, newest first")


class Neighbour(BaseModel):
    """An item that occurs together with another."""

    item: str = Field(description="Item id; empty where it is not known")
    title: str = Field(description="Title of the item")
    weight: float = Field(description="Weight of the pair")


class Item(BaseModel):
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
