"""A compiled book of rules: which of them act on a request, and which are off because they failed."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from prometheus_client import Counter

from schemas.ids import hash_id, hash_visitor
from serving.request.conditions import RequestCondition
from serving.request.requests import RecommendRequest
from serving.rules.experiments import NOT_ASSIGNED, Assigned, assign
from serving.rules.model import HOME, PLACEMENTS, Book, Boost, Cap, Limiting, Pin, Placement, Promote, Rule

MAX_SETS = 1000
"""Sets of rules acting together that are remembered."""
MAX_NAMED = 20
NONE_LEFT_OUT: Mapping[str, str] = {}
RULE_FAILURES = Counter("headrace_rule_failures", "Rules left out because they could not be evaluated")

log = structlog.get_logger()


class RequestFacts(NamedTuple):
    """Facts of a request that a rule's `when` can use; hours and days are UTC, Monday is 0."""

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
        """Return a text field."""
        return str(getattr(self, name))

    def number(self, name: str) -> Any:
        """Return a field that is a number or a truth value."""
        if name == "new_user":
            return self.n_events == 0
        if name in ("hour", "weekday"):
            at = datetime.fromtimestamp(self.now_ms / 1000, UTC)
            return at.hour if name == "hour" else at.weekday()
        return getattr(self, name)

    def likes(self, name: str) -> bool:
        """Return whether the user has an affinity to a category or brand."""
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
        """Switch off rules that failed, and log them, until another book is put."""
        failed = {failure.rule for failure in failures}
        others = [rule for rule in self.acting_rules if rule.id not in failed]
        if len(others) == len(self.acting_rules):
            raise failures[0]  # it does not act, so that leaving it out would change nothing
        self.skipped |= {failure.rule: str(failure) for failure in failures}
        RULE_FAILURES.inc(len(failures))
        # One traceback: a book may have a thousand rules.
        log.error("rules are left out", rules=sorted(failed)[:MAX_NAMED], version=self.version, exc_info=failures[0])
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
        """Return the rules that hold for a request, but for those `without`; `facts` is called where one needs them."""
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
