"""Experiments: a fixed part of the visitors gets another kind of answer, and every answer names its arm.

An arm changes a placement's defaults for requests, or switches rules off. Who is in an
experiment and in which arm are two hashes of the visitor, so a growing `share` moves nobody from arm to arm, and
experiments do not depend on each other (Kohavi, Tang, Xu, "Trustworthy Online Controlled Experiments", chapter 4). They
are made with the installation's key: nobody can choose an id for its arm, and another key deals all visitors anew.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.ids import hash_id
from serving.request.requests import MAX_COUNT, Name, Repeat, Strategy


class Arm(BaseModel):
    """One way to answer; what is not set stays as the placement has it. The first arm is the one compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Its name, which no other arm of the experiment has")
    weight: float = Field(1, gt=0, le=1000, description="Its part of the visitors, relative to the other arms")
    strategy: Strategy | None = Field(None, description="Where items come from")
    count: int | None = Field(None, ge=1, le=MAX_COUNT, description="How many items")
    repeat: Repeat | None = Field(None, description="Items the session has seen already")
    diversity: float | None = Field(None, ge=0, le=1, description="0: by score; towards 1: no two items alike")
    explore: int | None = Field(None, ge=0, le=20, description="Places at the end for items that are rarely shown")
    without_rules: tuple[Name, ...] = Field((), description="Rules that do not act in this arm")

    @property
    def changes(self) -> dict[str, Any]:
        """The options of a placement that the arm sets."""
        given = {name: getattr(self, name) for name in ("strategy", "count", "repeat", "diversity", "explore")}
        return {name: value for name, value in given.items() if value is not None}


class Experiment(BaseModel):
    """Two or more arms, where and when they are compared, and for which share of the visitors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name = Field(description="Its name, which no other experiment of the book has")
    note: str = Field("", max_length=500, description="For people")
    enabled: bool = Field(True, description="Whether it takes visitors")
    placements: tuple[Name, ...] = Field((), description="Only there; empty: everywhere")
    share: float = Field(1, gt=0, le=1, description="Of the visitors who take part")
    start: datetime | None = Field(None, description="From when it runs; UTC unless it says")
    end: datetime | None = Field(None, description="Until when it runs; UTC unless it says")
    arms: tuple[Arm, ...] = Field(
        min_length=2, max_length=20, description="Arms; the others are compared with the first"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have the same name")
        for name in ("start", "end"):
            at = getattr(self, name)
            if at is not None and at.tzinfo is None:
                object.__setattr__(self, name, at.replace(tzinfo=UTC))
        if self.start and self.end and self.start >= self.end:
            raise ValueError("start is not before end")
        return self

    def runs(self, placement: str, now_ms: int) -> bool:
        """Return whether the experiment takes requests there and then."""
        if not self.enabled or (self.placements and placement not in self.placements):
            return False
        started = self.start is None or now_ms >= self.start.timestamp() * 1000
        return started and (self.end is None or now_ms < self.end.timestamp() * 1000)

    def arm_of(self, visitor: int) -> Arm | None:
        """Return the arm of a visitor (`schemas.ids.hash_visitor`), None for one who does not take part."""
        if _part(f"{self.id}:in:{visitor:016x}") >= self.share:
            return None
        left = _part(f"{self.id}:arm:{visitor:016x}") * sum(arm.weight for arm in self.arms)
        for arm in self.arms:
            left -= arm.weight
            if left < 0:
                return arm
        return self.arms[-1]

    def arm(self, name: str) -> Arm | None:
        """Return the arm with this name."""
        return next((arm for arm in self.arms if arm.name == name), None)


def _part(text: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for a text."""
    return hash_id(text) / 2**64


class Assigned(NamedTuple):
    """The arms a request is answered by, in the order of the book; an earlier one's changes win."""

    arms: tuple[tuple[str, str], ...] = ()
    """(experiment, arm)."""
    changes: tuple[tuple[str, Any], ...] = ()
    without: frozenset[str] = frozenset()
    forced: bool = False
    """Whether the request itself has chosen an arm: such answers are not counted."""

    @property
    def text(self) -> str:
        """The arms as an answer's attribution names them: `experiment:arm,…`."""
        return ",".join(f"{experiment}:{arm}" for experiment, arm in self.arms)


NOT_ASSIGNED = Assigned()


def assign(
    experiments: tuple[Experiment, ...], placement: str, visitor: int, wanted: dict[str, str], now_ms: int
) -> Assigned:
    """Return the arms of a visitor (0: nobody, who takes part in nothing); `wanted` are chosen by the request."""
    arms: list[tuple[str, str]] = []
    changes: dict[str, Any] = {}
    without: set[str] = set()
    for experiment in experiments:
        name = wanted.get(experiment.id)
        if name is None and not (visitor and experiment.runs(placement, now_ms)):
            continue
        arm = experiment.arm_of(visitor) if name is None else experiment.arm(name)
        if arm is not None:
            arms.append((experiment.id, arm.name))
            changes = {**arm.changes, **changes}
            without.update(arm.without_rules)
    return Assigned(tuple(arms), tuple(changes.items()), frozenset(without), bool(wanted)) if arms else NOT_ASSIGNED
