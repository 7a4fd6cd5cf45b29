"""Business rules: what a shop wants whatever the model says. A book of rules and placements is one document.

docs/rules.md is the reference; `serving.rules.book_store` keeps the books, `serving.ranking.apply_rules` applies them.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import structlog
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.ids import hash_id, hash_visitor
from serving.request.conditions import ItemCondition, RequestCondition
from serving.request.requests import MAX_COUNT, Finite, Id, Name, RecommendRequest, Strategy
from serving.rules.experiments import NOT_ASSIGNED, Assigned, Experiment, assign

Condition = Annotated[str, Field(max_length=1000)]
MAX_SETS = 1000
"""Sets of rules acting together that are remembered."""
MAX_SAID = 20
NONE_LEFT_OUT: Mapping[str, str] = {}
RULE_FAILURES = Counter("headrace_rule_failures", "Rules left out because they could not be evaluated")

log = structlog.get_logger()


class _Rule(BaseModel):
    """What all rules have: a name, and when they hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name
    note: str = Field("", max_length=500, description="For people")
    enabled: bool = True
    placements: tuple[Name, ...] = Field((), description="Only there; empty: everywhere")
    when: Condition = Field("", description="Condition over the request; empty: always")
    start: datetime | None = None
    end: datetime | None = None
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

    action: Literal["include"]


class Exclude(_Where):
    """No item that passes."""

    action: Literal["exclude"]


class Boost(_Where):
    """The items' scores times a factor; below 1 they are buried."""

    action: Literal["boost"]
    factor: float = Field(gt=0, le=1000)


class Pin(_Rule):
    """These items from this position on, in this order."""

    action: Literal["pin"]
    items: tuple[Id, ...] = Field(min_length=1, max_length=50)
    position: int = Field(1, ge=1, le=MAX_COUNT)


class Promote(_Where):
    """The best items that pass at these positions; a promotion has a start and an end."""

    action: Literal["promote"]
    positions: tuple[Annotated[int, Field(ge=1, le=MAX_COUNT)], ...] = Field(min_length=1, max_length=20)


class Cap(_Rule):
    """At most so many of one category, brand or seller among the first."""

    action: Literal["cap"]
    by: Literal["category", "brand", "seller"]
    most: int = Field(ge=1, le=MAX_COUNT)
    first: int = Field(MAX_COUNT, ge=1, le=MAX_COUNT)


class MinStock(_Rule):
    """No item whose stock is counted and lower."""

    action: Literal["min_stock"]
    least: int = Field(ge=1, lt=2**53)


class MinMargin(_Rule):
    """No item whose margin is known and lower."""

    action: Literal["min_margin"]
    least: Finite


Limiting = Include | Exclude | MinStock | MinMargin
"""Rules that leave items out."""
Rule = Annotated[Include | Exclude | Boost | Pin | Promote | Cap | MinStock | MinMargin, Field(discriminator="action")]


class Placement(BaseModel):
    """What a request gets that names this place and says nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy = "hybrid"
    count: int | None = Field(None, ge=1, le=MAX_COUNT)
    repeat: Literal["allow", "demote", "exclude"] = "allow"
    diversity: float = Field(0, ge=0, le=1)
    explore: int = Field(0, ge=0, le=20, description="Places at the end given to items that are rarely shown")
    cache_s: float = Field(0, ge=0, le=3600, description="How long an answer is kept for equal requests")


HOME = "home"
"""The placement of a request that names none."""
PLACEMENTS = {
    "home": Placement(),
    "product": Placement(strategy="similar", count=12, repeat="exclude"),
    "basket": Placement(strategy="bought_together", count=6, repeat="exclude"),
    "search": Placement(strategy="session"),
    "email": Placement(count=6, repeat="exclude", diversity=0.2),
}


class Book(BaseModel):
    """Rules and placements; the placements named here replace those that are built in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...] = Field((), max_length=1000)
    placements: dict[Name, Placement] = {}
    experiments: tuple[Experiment, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _consistent(self) -> "Book":
        ids = [rule.id for rule in self.rules]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"rule {twice[0]} is there twice")
        for kind, named in (("rule", self.rules), ("experiment", self.experiments)):
            for one in named:
                unknown = set(one.placements) - set(self.all_placements)
                if unknown:
                    raise ValueError(f"{kind} {one.id}: there is no placement {sorted(unknown)[0]}")
        names = [experiment.id for experiment in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError("two experiments have the same id")
        for experiment in self.experiments:
            missing = {rule for arm in experiment.arms for rule in arm.without_rules} - set(ids)
            if missing:
                raise ValueError(f"experiment {experiment.id}: there is no rule {sorted(missing)[0]}")
        return self

    @property
    def all_placements(self) -> dict[str, Placement]:
        return {**PLACEMENTS, **self.placements}


class RequestFacts(NamedTuple):
    """What a rule's `when` can ask of a request; hours and days are UTC, Monday is 0."""

    placement: str
    country: str
    user: str
    now_ms: int
    n_events: int
    n_purchases: int
    n_items: int
    liked: frozenset[int]
    """Low 32 bits of the id hashes of the user's categories and brands."""

    def text(self, name: str) -> str:
        return str(getattr(self, name))

    def number(self, name: str) -> Any:
        if name == "new_user":
            return self.n_events == 0
        if name in ("hour", "weekday"):
            at = datetime.fromtimestamp(self.now_ms / 1000, UTC)
            return at.hour if name == "hour" else at.weekday()
        return getattr(self, name)

    def likes(self, name: str) -> bool:
        return hash_id(name) & 0xFFFFFFFF in self.liked


class Acting:
    """The rules that act on an answer, in the order they act."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.limiting = tuple(rule for rule in rules if isinstance(rule, Limiting))
        self.boosts = tuple(rule for rule in rules if isinstance(rule, Boost))
        self.fixing = tuple(rule for rule in rules if isinstance(rule, Pin | Promote))
        self.caps = tuple(rule for rule in rules if isinstance(rule, Cap))
        self.limits = tuple(rule.id for rule in self.limiting)


NO_RULES = Acting(())


class RuleFailed(Exception):
    """A rule could not be evaluated: it is to be left out, and the answer worked out without it."""

    def __init__(self, rule: str, error: Exception) -> None:
        super().__init__(f"rule {rule} cannot be evaluated: {type(error).__name__}: {error}")
        self.rule = rule


class Compiled:
    """A book ready for requests."""

    def __init__(self, book: Book, version: int = 0, skipped: Mapping[str, str] = NONE_LEFT_OUT) -> None:
        self.book, self.version, self.placements = book, version, book.all_placements
        self.skipped = dict(skipped)
        """Why rules of the book do not act, by id; where it is a `when` that failed, for some requests."""
        order = sorted(book.rules, key=lambda rule: (-rule.priority, rule.id))
        self._act_by([rule for rule in order if rule.enabled])

    def _act_by(self, rules: list[Rule]) -> None:
        self.acting_rules = rules
        self._when = {rule.id: RequestCondition(rule.when) for rule in rules if rule.when}
        sometimes = any(rule.placements or rule.start or rule.end or rule.when or rule.group for rule in rules)
        self._always = None if sometimes else Acting(tuple(rules))
        self._sets: dict[tuple[str, ...], Acting] = {}

    def copy(self) -> "Compiled":
        """Return the same book for another thread."""
        same = copy(self)
        same._sets, same.skipped = {}, dict(self.skipped)
        return same

    def leave_out(self, failures: Sequence[RuleFailed]) -> None:
        """Have rules that failed act no more, and say so, until another book is put."""
        failed = {failure.rule for failure in failures}
        others = [rule for rule in self.acting_rules if rule.id not in failed]
        if len(others) == len(self.acting_rules):
            raise failures[0]  # it does not act, so that leaving it out would change nothing
        self.skipped |= {failure.rule: str(failure) for failure in failures}
        RULE_FAILURES.inc(len(failures))
        # One traceback: a book may have a thousand rules.
        log.error("rules are left out", rules=sorted(failed)[:MAX_SAID], version=self.version, exc_info=failures[0])
        self._act_by(others)

    def _does_not_hold(self, rule: str, error: Exception) -> None:
        """Take note of a rule whose `when` could not be evaluated for a request."""
        RULE_FAILURES.inc()
        if rule not in self.skipped:
            self.skipped[rule] = str(error)
            log.error("a rule does not hold, as its `when` failed", rule=rule, version=self.version, exc_info=error)

    def assign(self, request: RecommendRequest, now_ms: int) -> Assigned:
        """Return the arms of the experiments a request is answered by."""
        if not self.book.experiments:
            return NOT_ASSIGNED
        visitor = hash_visitor(request.user, request.session)
        return assign(self.book.experiments, request.placement or HOME, visitor, request.experiments, now_ms)

    def placement(self, name: str | None, assigned: Assigned = NOT_ASSIGNED) -> Placement:
        """Return a placement as the arms change it; home where there is no name, or one that this book lacks."""
        placement = self.placements.get(name or HOME, PLACEMENTS[HOME])
        return placement.model_copy(update=dict(assigned.changes)) if assigned.changes else placement

    def acting(self, facts: Callable[[], RequestFacts], without: frozenset[str] = frozenset()) -> Acting:
        """Return the rules that hold for a request; `facts` are asked for where a rule has a condition."""
        if self._always is not None and not without:
            return self._always
        rules = self._holding(facts(), without)
        key = tuple(rule.id for rule in rules)
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= MAX_SETS:
                self._sets.clear()
            found = self._sets[key] = Acting(tuple(rules))
        return found

    def _holding(self, facts: RequestFacts, without: frozenset[str]) -> list[Rule]:
        found: list[Rule] = []
        groups: set[str] = set()
        for rule in self.acting_rules:
            if rule.id in without or rule.group in groups or not self._holds(rule, facts):
                continue
            if rule.group:
                groups.add(rule.group)
            found.append(rule)
        return found

    def _holds(self, rule: Rule, facts: RequestFacts) -> bool:
        if rule.placements and facts.placement not in rule.placements:
            return False
        if rule.start and facts.now_ms < rule.start.timestamp() * 1000:
            return False
        if rule.end and facts.now_ms >= rule.end.timestamp() * 1000:
            return False
        try:
            return rule.id not in self._when or self._when[rule.id].holds(facts)
        except Exception as error:  # of this request: for another one it may well hold
            self._does_not_hold(rule.id, error)
            return False
