"""What every field of an answer means: the one place for REST's schema, GraphQL's and the comments of the .proto.

The models describe; answers themselves are `serving.request.answer` and are written as bytes without them. Tests hold
the two to each other.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.request.reasons import REASONS
from serving.request.requests import STRATEGIES

Fallback = Literal[
    "personalised", "session", "cooccurrence", "content", "new", "popular", "rules", "last_known_popular", "no_data"
]


CODES = "\n".join((
    "Stable code, which an item carries only while the evidence for it is there. New ones may come.", "",
    *(f"- `{code}`: {claim.evidence}" for code, claim in REASONS.items()),
))  # fmt: skip


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True)


class Reason(_Schema):
    """Why an item is in a list: a code and arguments for programs, a sentence for people."""

    code: str = Field(description=CODES, examples=list(REASONS))
    args: dict[str, str] = Field(description="Arguments of the code by name", examples=[{"item": "tea"}])
    text: str = Field(description="A sentence in the request's language", examples=["because you looked at Green tea"])


class Contribution(_Schema):
    """The part of an item's score that is due to one event."""

    kind: str = Field(description="What the visitor did: `viewed` or `bought`", examples=["viewed"])
    item: str = Field(description="Item id of the event", examples=["tea"])
    title: str = Field(description="Title of that item", examples=["Green tea"])
    share: float = Field(
        description="Share of the score that would be missing without the event, 0 to 1", examples=[0.6]
    )


class Recommendation(_Schema):
    """One item of a list."""

    item: str = Field(description="Item id", examples=["pot"])
    title: str = Field(description="Title in the catalogue; the id where there is none", examples=["Tea pot"])
    score: float = Field(description="Score of the list, best first (docs/recommend.md)", examples=[0.45])
    source: str = Field(description="What proposed the item", examples=["cooccurrence"])
    reason: Reason = Field(description="Why the item is in the list")
    rules: list[str] = Field(description="Ids of the rules that moved the item", examples=[[]])
    contributions: list[Contribution] = Field(
        description="With `explain`: by how much the score is due to what", examples=[[]]
    )
    fields: dict[str, Any] | None = Field(
        None,
        description="The product fields that the request or its placement names, null where not known; absent where"
        " none are named",
        examples=[{"price": 24.5, "image": None}],
    )


class RuleTrace(_Schema):
    """What one rule did to a list."""

    rule: str = Field(description="Id of the rule", examples=["clay-week"])
    action: str = Field(description="Its action", examples=["boost"])
    effect: str = Field(description="What it did, in words", examples=["moved"])
    items: list[str] = Field(description="Ids of the items it did that to", examples=[["pot"]])


class Answer(_Schema):
    """A list of items, where it came from, and what it was computed from."""

    items: list[Recommendation] = Field(description="The list, best first")
    request_id: str = Field(
        description="Name of the answer in logs and impressions", examples=["afecd88e7fa28a591da3c770e44ec4dd"]
    )
    generation: str = Field(description="Generation of rows that was read", examples=["g1"])
    anchor: str | None = Field(
        description="Version of the nightly model in use, if there is one", examples=["a20261130-202347"]
    )
    fallback: Fallback = Field(description="Where most of the items come from", examples=["personalised"])
    placement: str = Field(description="Placement of the request; empty: none was named", examples=["home"])
    strategy: str = Field(description="Strategy that was used", examples=list(STRATEGIES[:1]))
    rules_version: int = Field(description="Version of the book of rules; 0: none", examples=[3])
    attribution: str = Field(
        description="To be sent back in the `context` of events that come of the answer",
        examples=["afecd88e7fa28a591da3c770e44ec4dd.home.hybrid.3"],
    )
    next_cursor: str | None = Field(description="Cursor of the next page, if there is one", examples=["obAEYtO2EVE="])
    skipped_sources: list[str] = Field(description="Sources that `deadline_ms` left no time for", examples=[[]])
    rules: list[RuleTrace] = Field(description="With `explain`: what each rule did", examples=[[]])
    milliseconds: float = Field(description="Time in the server, in milliseconds", examples=[1.9])
    experiments: dict[str, str] = Field(description="The visitor's arm by experiment", examples=[{}])


class BatchAnswer(_Schema):
    """The answers to a batch, in the order of its requests."""

    answers: list[Answer] = Field(description="One answer for each request, in order")
