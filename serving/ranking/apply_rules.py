"""Applies rules to the candidates of one answer. They override the model; a trace records their effects.

Rules that leave items out have acted before, on the selection. Here, in this order:
boosts multiply, the list is sorted and made diverse, pins and promotions take their
places, and caps bound what fills the rest. Pins and promotions come before caps.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.candidates.pool import Pool
from serving.catalogue.catalogue import Catalogue
from serving.ranking.caps import fill
from serving.ranking.fill_places import EMPTY, FIXED
from serving.request.answer import Rules, RuleTrace
from serving.rules.acting import Acting
from serving.rules.item_filter import Selections
from serving.rules.model import Pin, Promote, Rule

MAX_TRACED = 50
Order = npt.NDArray[np.int64]


class Placed(NamedTuple):
    """One place a rule has given away: a candidate's index (-1: brought by the rule), its row, and the rule."""

    candidate: int
    row: int
    rule: str


class Arranged(NamedTuple):
    """The places of a list, as parallel lists."""

    candidates: list[int]
    """Index of each; -1: brought by a rule."""
    rows: list[int]
    rules: list[Rules]
    """Rules that moved it."""
    promoted: dict[int, str]
    """By index in the list: the rule that gave the place away."""
    scores: list[float]
    """Falling: of candidates with all boosts, in order; a place that a rule gave away has that of the place before."""


class _Trace:
    """The effects of the rules, recorded if the request wants an explanation."""

    def __init__(self, catalogue: Catalogue, wanted: bool) -> None:
        self._catalogue, self.wanted = catalogue, wanted
        self.found: list[RuleTrace] = []

    def say(self, rule: Rule, effect: str, rows: Iterable[int]) -> None:
        if self.wanted:
            self.note(rule, effect, [self._catalogue.ids[row] for row in islice(rows, MAX_TRACED)])

    def note(self, rule: Rule, effect: str, items: list[str]) -> None:
        if self.wanted:
            self.found.append(RuleTrace(rule.id, rule.action, effect, items[:MAX_TRACED]))


class BookRules(NamedTuple):
    """The rules that act on one answer, and the catalogue they are about."""

    acting: Acting
    selections: Selections
    book: int
    """The version of the book they are of."""
    catalogue: Catalogue

    def matching(self, rule: Rule) -> npt.NDArray[np.bool_]:
        """Return which items a rule is about, by catalogue row. Raises RuleFailed."""
        return self.selections.matching(rule, self.book)


Vary = Callable[[Order, npt.NDArray[np.float64], npt.NDArray[np.int64]], Order]
"""Makes an order diverse, given the score and the catalogue row of each candidate."""


def arrange(
    pool: Pool, rules: BookRules, count: int, offset: int, vary: Vary | None, explain: bool
) -> tuple[Arranged, list[RuleTrace]]:
    """Return the places `offset + 1` to `offset + count` and, with `explain`, what each rule did."""
    acting, found = rules.acting, pool.candidates()
    rows, trace = found.row, _Trace(rules.catalogue, explain)
    order, scores = _by_score(rules, rows, found.score, trace)
    if vary is not None and len(order):
        order = vary(order, scores, rows)
    fixed = _FixedPlaces(pool, rules, rows, order, offset + count, trace).fill() if acting.fixing else {}
    if fixed:
        order = order[~np.isin(rows[order], [place.row for place in fixed.values()])]
    if acting.caps or fixed:
        row_at = {position: place.row for position, place in fixed.items()}
        chosen, held_back = fill(order, rows, acting.caps, rules.catalogue, row_at, offset, count)
        for cap, held in zip(acting.caps, held_back, strict=True):
            if explain and held.any():
                trace.say(cap, f"at most {cap.most} of one {cap.by} in {cap.first}", rows[held])
    else:
        chosen = order[:count]
    placed = _lists(chosen.tolist(), rows, fixed, offset)
    placed.scores.extend(_falling(placed, scores))
    for rule in acting.boosts:
        for k in np.flatnonzero(rules.matching(rule)[placed.rows]).tolist():
            if k not in placed.promoted:
                placed.rules[k] = (*placed.rules[k], rule.id)
    return placed, trace.found


def _by_score(
    rules: BookRules, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], trace: _Trace
) -> tuple[Order, npt.NDArray[np.float64]]:
    """Return the candidates in the order of their scores with all boosts, and these scores."""
    if not rules.acting.boosts:
        return np.arange(len(rows)), scores
    scores = scores * rules.selections.factors(rules.acting, rules.book)[rows]
    for rule in rules.acting.boosts if trace.wanted else ():
        trace.say(rule, f"scores times {rule.factor:g}", rows[rules.matching(rule)[rows]])
    return np.argsort(-scores, kind="stable"), scores


def _falling(placed: Arranged, scores: npt.NDArray[np.float64]) -> list[float]:
    """Return the scores of a list's places, given those of the candidates (`Arranged.scores`)."""
    own = [k for at, k in enumerate(placed.candidates) if at not in placed.promoted]
    rest = iter(np.sort(scores[own])[::-1].tolist())
    before = float(scores[own].max()) if own else 1.0
    found = []
    for at in range(len(placed.candidates)):
        before = before if at in placed.promoted else next(rest)
        found.append(before)
    return found


def _lists(chosen: list[int], rows: npt.NDArray[np.int64], fixed: dict[int, Placed], offset: int) -> Arranged:
    """Return the places, given the candidate of each, FIXED or EMPTY."""
    if not fixed:
        candidates = [k for k in chosen if k != EMPTY]
        return Arranged(candidates, rows[candidates].tolist(), [()] * len(candidates), {}, [])
    placed = Arranged([], [], [], {}, [])
    for position, k in enumerate(chosen, offset + 1):  # what lies before was on an earlier page
        if k == FIXED:
            place = fixed[position]
            placed.promoted[len(placed.rows)] = place.rule
            placed.candidates.append(place.candidate)
            placed.rows.append(place.row)
            placed.rules.append((place.rule,))
        elif k != EMPTY:
            placed.candidates.append(k)
            placed.rows.append(int(rows[k]))
            placed.rules.append(())
    return placed


class _FixedPlaces:
    """Gives places away to pins and promotions, in the order of the rules; an item whose place is taken moves down."""

    def __init__(
        self, pool: Pool, rules: BookRules, rows: npt.NDArray[np.int64], order: Order, last: int, trace: _Trace
    ) -> None:
        """`rows`, `order`: the candidates, and their order without these rules; `last`: the last position there is."""
        self._pool, self._rules, self._last, self._trace = pool, rules, last, trace
        self._ranked = rows[order] if len(rows) else rows
        self._candidate_of = {row: k for k, row in enumerate(rows.tolist())}
        self._fixed: dict[int, Placed] = {}
        self._taken: set[int] = set()

    def fill(self) -> dict[int, Placed]:
        """Return what is placed, by position from 1."""
        for rule in self._rules.acting.fixing:
            if isinstance(rule, Pin):
                self._pin(rule)
            else:
                self._promote(rule)
        return self._fixed

    def _pin(self, rule: Pin) -> None:
        placed, refused = [], []
        for place, item in enumerate(rule.items):
            row = self._rules.catalogue.row_of(hash_id(item))
            if row < 0 or row in self._taken or not (row in self._candidate_of or self._pool.allows(row)):
                refused.append(item)
            elif self._put(rule, row, rule.position + place):
                placed.append(row)
        self._trace.say(rule, f"put at position {rule.position}", placed)
        if refused:
            self._trace.note(rule, "may not be shown", refused)

    def _promote(self, rule: Promote) -> None:
        matching = self._rules.matching(rule)
        best = [row for row in self._ranked[matching[self._ranked]].tolist() if row not in self._taken]
        if len(best) < len(rule.positions):
            known = self._candidate_of
            others = (row for row in np.flatnonzero(matching).tolist() if row not in self._taken and row not in known)
            best += [row for row in others if self._pool.allows(row)]
        placed = [row for row, position in zip(best, rule.positions, strict=False) if self._put(rule, row, position)]
        self._trace.say(rule, f"at positions {', '.join(map(str, rule.positions))}", placed)

    def _put(self, rule: Pin | Promote, row: int, wanted: int) -> bool:
        """Put an item at a position or the next free one; return whether there was one."""
        position = wanted
        while position in self._fixed:
            position += 1
        if position > self._last:
            return False
        self._fixed[position] = Placed(self._candidate_of.get(row, -1), row, rule.id)
        self._taken.add(row)
        return True
