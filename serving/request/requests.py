"""Requests and their fields, the same over HTTP, gRPC and GraphQL."""

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from schemas.similar_names import allowed
from serving.request.conditions import ItemCondition
from serving.request.product_fields import MAX_FIELDS, ProductField

Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""Of rules, placements, experiments and their arms."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""What a float64 holds and can be reckoned with."""
Strategy = Literal[
    "hybrid", "collaborative", "content", "session", "similar", "bought_together", "trending", "popular",
    "buy_again", "new",
]  # fmt: skip
STRATEGIES: tuple[str, ...] = get_args(Strategy)
Repeat = Literal["allow", "demote", "exclude", "new_first"]
"""Items that the session has seen already: scored as repeats, scored as others, left out, or behind all others."""
MAX_COUNT = 200
MAX_BATCH = 1000
SHOULD, QUOTED = re.compile(r"^\w+ should "), re.compile(r"'([^']+)'")
"""In the words of pydantic: how most messages begin, and the values that a field may have."""


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return (field, message) of the first thing that is wrong with a request."""
    first = error.errors(include_url=False)[0]
    return ".".join(str(part) for part in first["loc"]) or "body", message_of(first)


def message_of(wrong: ErrorDetails) -> str:
    """Return what is wrong in our words: what is allowed, what was given, what may be meant."""
    kind, given, path = wrong["type"], wrong["input"], wrong["loc"]
    if kind == "extra_forbidden":
        model = Filters if "filters" in path[:-1] else RecommendRequest
        return f"there is no such field{allowed(str(path[-1]), model.model_fields)}"
    if kind == "literal_error":
        return f"cannot be {given!r:.60}{allowed(str(given), QUOTED.findall(wrong['ctx']['expected']), 'it is one of')}"
    message = SHOULD.sub("must ", wrong["msg"].removeprefix("Value error, "))
    return f"{message}; got {given!r:.60}" if message != wrong["msg"] and isinstance(given, int | float) else message


class Filters(BaseModel):
    """Filters of items; an item whose value the catalogue lacks is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: Id | None = Field(None, description="Category path; what lies below it counts")
    brands: tuple[Id, ...] = Field((), max_length=100, description="One of these brands")
    min_price: Finite | None = Field(None, ge=0, description="Lowest unit price")
    max_price: Finite | None = Field(None, ge=0, description="Highest unit price")
    country: Id | None = Field(None, description="Sold there: attribute `countries` lists it, or is not set")
    where: str | None = Field(None, max_length=1000, description="Condition over items (docs/rules.md)")

    @field_validator("where")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            ItemCondition(value)
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Filters":
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise ValueError("min_price is above max_price")
        return self


class RecommendRequest(BaseModel):
    """A request for recommendations; nothing is required."""

    model_config = ConfigDict(extra="forbid")
    # Defaults that cannot change, or a factory: pydantic copies others for each request, by a way that takes 2 µs.

    user: Id | None = Field(None, description="User id; unknown ones are answered too")
    session: Id | None = Field(None, description="Session id of an anonymous visitor whose events were sent with it")
    items: tuple[Id, ...] = Field(
        (), max_length=100, description="Items in context, oldest first: page, basket, session"
    )
    placement: Id | None = Field(None, description="Where the list is shown; brings defaults and its own rules")
    strategy: Strategy | None = Field(None, description="Where items come from; the placement's, else hybrid")
    count: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="How many items; the placement's, else the server's (20)"
    )
    exclude: tuple[Id, ...] = Field((), max_length=1000, description="Item ids not to show")
    exclude_purchased: bool | None = Field(
        None, description="Whether to leave out what the user bought; the server's setting, if not given"
    )
    exclude_out_of_stock: bool | None = Field(
        None, description="Whether to leave out items with stock 0; the server's setting, if not given"
    )
    repeat: Repeat | None = Field(
        None,
        description="Items the session has seen already: scored as repeats (`allow`), as others (`demote`), left out"
        " (`exclude`), or behind all others (`new_first`); the placement's, if not given",
    )
    filters: Filters | None = Field(None, description="What the items must be")
    country: Id | None = Field(None, description="The visitor's country, for rules and popular lists")
    diversity: Finite | None = Field(None, ge=0, le=1, description="0: by score; towards 1: no two items alike")
    diversity_method: Literal["mmr", "dpp", "calibrated"] = Field(
        "mmr", description="Maximal marginal relevance, greedy DPP, or departments as in what the visitor did"
    )
    explore: int | None = Field(None, ge=0, le=20, description="Places at the end for items that are rarely shown")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Equal seeds choose equal items for `explore`")
    explain: bool = Field(
        False, description="Whether the answer has `contributions` of events to scores, and what each rule did"
    )
    cursor: str | None = Field(None, max_length=16_000, description="`next_cursor` of an answer: go on behind it")
    deadline_ms: Finite | None = Field(
        None,
        gt=0,
        description="Milliseconds after which no further source begins; those left out are in `skipped_sources`",
    )
    lang: Literal["en", "de"] = Field("en", description="Language of the reasons")
    fields: tuple[ProductField, ...] | None = Field(
        None, max_length=MAX_FIELDS, description="Product fields that items carry; the placement's, else none"
    )
    experiments: dict[Name, Name] = Field(
        default_factory=dict,
        max_length=20,
        description="Arms to answer by whoever asks, for trying; such answers are not counted",
    )


class BatchRequest(BaseModel):
    """Requests that are answered together."""

    requests: list[RecommendRequest] = Field(min_length=1, max_length=MAX_BATCH, description="The requests, in order")
