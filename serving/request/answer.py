"""An answer: items, the reason of each, and the effects of rules. Independent of any wire format."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from serving.request.reasons import Reason

Rules = tuple[str, ...]
"""Ids of rules."""


@dataclass(slots=True)
class Recommendation:
    """One item of an answer."""

    item: str
    title: str
    score: float
    source: str
    reason: Reason
    rules: Sequence[str] = ()
    """Rules that moved it."""
    contributions: Sequence[dict[str, Any]] = ()
    """With `explain`: by how much its score is due to what (`kind`, `item`, `share`)."""


@dataclass(slots=True)
class DetailedRecommendation(Recommendation):
    """One item of an answer whose request or placement names product fields."""

    fields: Mapping[str, str | float | None] = field(default_factory=dict)
    """By name, None where the catalogue has nothing."""


class ItemList(Sequence[Recommendation]):
    """The list of an answer, best first."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Recommendation]: ...

    def __getitem__(self, index: int | slice) -> Recommendation | Sequence[Recommendation]:
        return list(self)[index]

    @abstractmethod
    def __iter__(self) -> Iterator[Recommendation]: ...

    @abstractmethod
    def sources(self) -> list[tuple[str, str]]:
        """Return the id of each item and where it came from."""


@dataclass(slots=True)
class RuleTrace:
    """What one rule did to an answer."""

    rule: str
    action: str
    effect: str
    items: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """An answer; `fallback` says where most of its items come from (docs/recommend.md)."""

    items: ItemList
    request_id: str
    generation: str
    anchor: str | None
    fallback: str
    placement: str = ""
    strategy: str = ""
    rules_version: int = 0
    attribution: str = ""
    """To be sent back in the `context` of events that come of this answer."""
    next_cursor: str | None = None
    """Cursor of the next page; None: there is nothing more."""
    skipped_sources: list[str] = field(default_factory=list)
    """Sources the deadline left no time for."""
    rules: list[RuleTrace] = field(default_factory=list)
    milliseconds: float = 0.0
    experiments: dict[str, str] = field(default_factory=dict)
    """The arm of each experiment the answer was given by."""
