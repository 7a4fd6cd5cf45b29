"""Business rules, which override the model. A book of rules and placements is one document.

docs/rules.md is the reference; `serving.rules.acting` says which rules act on a request,
`serving.rules.book_store` keeps the books, `serving.ranking.apply_rules` applies them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serving.request.conditions import ItemCondition, RequestCondition
from serving.request.product_fields import MAX_FIELDS, ProductField
from serving.request.requests import MAX_COUNT, Finite, Id, Name, Repeat, Strategy
from serving.rules.experiments import Experiment
from serving.rules.references import wrong_references

Condition = Annotated[str, Field(max_length=1000)]


ACTION = Field(description="What the rule does")


class _Rule(BaseModel):
    """Fields of all rules: a name, and when they hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name = Field(description="Its name, which no other rule of the book has")
    note: str = Field("", max_length=500, description="For people")
    enabled: bool = Field(True, description="Whether it acts")
    placements: tuple[Name, ...] = Field((), description="Only there; empty: everywhere")
    when: Condition = Field("", description="Condition over the request; empty: always")
    start: datetime | None = Field(None, description="From when it acts; UTC unless it says")
    end: datetime | None = Field(None, description="Until when it acts; UTC unless it says")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher ones act first")
    group: str = Field("", max_length=64, description="Of a group's rules that hold only the first acts")

    @field_validator("when")
    @classmethod
    def _compiles(cls, value: str) -> str:
        if value:
            RequestCondition(value)
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "_Rule":
        for name in ("start", "end"):
            at = getattr(self, name)
            if at is not None and at.tzinfo is None:
                object.__setattr__(self, name, at.replace(tzinfo=UTC))
        if self.start and self.end and self.start >= self.end:
            raise ValueError("start is not before end")
        return self


class _Where(_Rule):
    where: Condition = Field(description="Condition over items")

    @field_validator("where")
    @classmethod
    def _where_compiles(cls, value: str) -> str:
        ItemCondition(value)
        return value


class Include(_Where):
    """Only items that pass."""

    action: Literal["include"] = ACTION


class Exclude(_Where):
    """No item that passes."""

    action: Literal["exclude"] = ACTION


class Boost(_Where):
    """The items' scores times a factor; below 1 they are buried."""

    action: Literal["boost"] = ACTION
    factor: float = Field(gt=0, le=1000, description="What scores are multiplied by")


class Pin(_Rule):
    """These items from this position on, in this order."""

    action: Literal["pin"] = ACTION
    items: tuple[Id, ...] = Field(min_length=1, max_length=50, description="Item ids, in order")
    position: int = Field(1, ge=1, le=MAX_COUNT, description="Place of the first one, from 1")


class Promote(_Where):
    """The best items that pass at these positions; a promotion has a start and an end."""

    action: Literal["promote"] = ACTION
    positions: tuple[Annotated[int, Field(ge=1, le=MAX_COUNT)], ...] = Field(
        min_length=1, max_length=20, description="Places, from 1"
    )


class Cap(_Rule):
    """At most so many of one category, brand or seller among the first."""

    action: Literal["cap"] = ACTION
    by: Literal["category", "brand", "seller"] = Field(description="What items share")
    most: int = Field(ge=1, le=MAX_COUNT, description="At most so many of one")
    first: int = Field(MAX_COUNT, ge=1, le=MAX_COUNT, description="Among so many places at the top")


class MinStock(_Rule):
    """No item whose stock is counted and lower."""

    action: Literal["min_stock"] = ACTION
    least: int = Field(ge=1, lt=2**53, description="Fewest units in stock")


class MinMargin(_Rule):
    """No item whose margin is known and lower."""

    action: Literal["min_margin"] = ACTION
    least: Finite = Field(description="Lowest margin, as a share of the price")


Limiting = Include | Exclude | MinStock | MinMargin
"""Rules that leave items out."""
Rule = Annotated[Include | Exclude | Boost | Pin | Promote | Cap | MinStock | MinMargin, Field(discriminator="action")]


class Placement(BaseModel):
    """Defaults of requests that name this placement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy = Field("hybrid", description="Where items come from")
    count: int | None = Field(None, ge=1, le=MAX_COUNT, description="How many items; the server's default, if null")
    repeat: Repeat = Field("allow", description="Items the session has seen already")
    diversity: float = Field(0, ge=0, le=1, description="0: by score; towards 1: no two items alike")
    explore: int = Field(0, ge=0, le=20, description="Places at the end given to items that are rarely shown")
    cache_s: float = Field(0, ge=0, le=3600, description="How long an answer is kept for equal requests")
    fields: tuple[ProductField, ...] = Field((), max_length=MAX_FIELDS, description="Product fields that items carry")


HOME = "home"
"""The placement of a request that names none."""
PLACEMENTS = {
    "home": Placement(repeat="new_first"),
    "product": Placement(strategy="similar", count=12, repeat="exclude"),
    "basket": Placement(strategy="bought_together", count=6, repeat="exclude"),
    "search": Placement(strategy="session"),
    "email": Placement(count=6, repeat="exclude", diversity=0.2),
}


def _names(one: Rule | Experiment) -> dict[str, Any]:
    return {"id": one.id, "placements": one.placements}


class Book(BaseModel):
    """Rules and placements; the placements named here replace those that are built in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...] = Field((), max_length=1000, description="Rules; those with a higher priority act first")
    placements: dict[Name, Placement] = Field({}, description="Placements by name")
    experiments: tuple[Experiment, ...] = Field((), max_length=100, description="Experiments")

    @model_validator(mode="after")
    def _consistent(self) -> "Book":
        experiments = [
            {**_names(one), "arms": [{"without_rules": arm.without_rules} for arm in one.arms]}
            for one in self.experiments
        ]
        data = {"rules": list(map(_names, self.rules)), "placements": self.placements, "experiments": experiments}
        for _, message in wrong_references(data, PLACEMENTS):
            raise ValueError(message)
        return self

    @property
    def all_placements(self) -> dict[str, Placement]:
        """The placements there are: those that are built in, and the book's own in their place."""
        return {**PLACEMENTS, **self.placements}
