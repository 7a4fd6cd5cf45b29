"""What is asked and what is answered, the same over HTTP and gRPC."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.reasons import Reason

Id = Annotated[str, Field(min_length=1, max_length=256)]
MAX_COUNT = 200


class Filters(BaseModel):
    """What an item must be; an item of which the catalogue does not know it is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: Id | None = Field(None, description="Category path; what lies below it counts")
    brands: tuple[Id, ...] = Field((), max_length=100, description="One of these brands")
    min_price: float | None = Field(None, ge=0)
    max_price: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Filters":
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise ValueError("min_price is above max_price")
        return self


class RecommendRequest(BaseModel):
    """A request for recommendations; nothing is required."""

    model_config = ConfigDict(extra="forbid")

    user: Id | None = Field(None, description="User id; unknown ones are answered too")
    session: Id | None = Field(None, description="Session id of an anonymous visitor whose events were sent with it")
    items: list[Id] = Field([], max_length=100, description="Items in context, oldest first: page, basket, session")
    count: int | None = Field(None, ge=1, le=MAX_COUNT, description="How many items")
    exclude: list[Id] = Field([], max_length=1000, description="Items not to show")
    exclude_purchased: bool | None = Field(None, description="Leave out what the user bought")
    exclude_out_of_stock: bool | None = Field(None, description="Leave out items with stock 0")
    repeat: Literal["allow", "demote", "exclude"] = Field("allow", description="Items the session has seen already")
    filters: Filters | None = Field(None, description="What the items must be")
    diversity: float = Field(0, ge=0, le=1, description="0: by score; towards 1: no two items alike")
    diversity_method: Literal["mmr", "dpp"] = Field("mmr", description="Maximal marginal relevance, or greedy DPP")
    lang: Literal["en", "de"] = Field("en", description="Language of the reasons")


@dataclass(frozen=True)
class Recommendation:
    """One item of an answer."""

    item: str
    title: str
    score: float
    source: str
    reason: Reason


@dataclass
class Answer:
    """An answer; `fallback` says how far down the ladder it came from (docs/api.md)."""

    items: list[Recommendation]
    request_id: str
    generation: str
    anchor: str | None
    fallback: str
    milliseconds: float = 0.0
