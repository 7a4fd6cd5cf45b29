"""How a server is: health and live numbers."""

from typing import Literal

from pydantic import BaseModel, Field


class Live(BaseModel):
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


class Health(BaseModel):
    """The server is alive."""

    status: Literal["alive"] = Field(description="That it is")


class Readiness(BaseModel):
    """Whether the server has something to answer from."""

    ready: bool = Field(description="Whether it has")
    items: int = Field(description="Items in the catalogue", ge=0)
    skipped_rules: list[str] = Field(description="Ids of rules that are left out because they fail")
    book_missing: bool = Field(
        description="Whether the last known book of rules is used because Redis and the log have none"
    )
