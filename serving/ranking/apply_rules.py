"""Rules applied to the candidates of one answer. They override the model, and say what they did.

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


class _Trace:
    """What the rules did, written down if somebody asked for it."""

    def __init__(self, catalogue: Catalogue, wanted: bool) -> None:
        self._catalogue, self._wanted = catalogue, wanted
        self.found: list[RuleTrace] = []

    def say(self, rule: Rule, effect: str, rows: Iterable[int]) -> None:
        if self._wanted:
            self.note(rule, effect, [self._catalogue.ids[row] for row in islice(rows, MAX_TRACED)])

    def note(self, rule: Rule, effect: str, items: list[str]) -> None:
        if self._wanted:
            self.found.append(RuleTrace(rule.id, rule.action, effect, items[:MAX_TRACED]))


def arrange(
    pool: Pool, acting: Acting, selections: Selections, book: int, catalogue: Catalogue, count: int, offset: int,
    vary: Callable[[Order, npt.NDArray[np.float64], npt.NDArray[np.int64]], Order] | None, explain: bool,
) -> tuple[Arranged, list[RuleTrace]]:  # fmt: skip
    """Return the places `offset + 1` to `offset + count` and, with `explain`, what each rule did.

    `vary(order, worth, rows)` makes an order diverse.
    """
    found = pool.candidates()
    rows, worth = found.row, found.worth
    trace = _Trace(catalogue, explain)
    if acting.boosts:
        worth = worth * selections.factors(acting, book)[rows]
        order = np.argsort(-worth, kind="stable")
        for rule in acting.boosts if explain else ():
            trace.say(rule, f"scores times {rule.factor:g}", rows[selections.matching(rule, book)[rows]])
    else:
        order = np.arange(pool.n)
    if vary is not None and len(order):
        order = vary(order, worth, rows)
    fixed = _fixed_places(pool, acting, selections, book, catalogue, rows, order, offset + count, trace)
    if fixed:
        order = order[~np.isin(rows[order], [place.row for place in fixed.values()])]
    if acting.caps or fixed:
        row_at = {position: place.row for position, place in fixed.items()}
        chosen, held_back = fill(order, rows, acting.caps, catalogue, row_at, offset, count)
        for cap, held in zip(acting.caps, held_back, strict=True):
            if explain and held.any():
                trace.say(cap, f"at most {cap.most} of one {cap.by} in {cap.first}", rows[held])
    else:
        chosen = order[:count]
    placed = _lists(chosen.tolist(), rows, fixed, offset)
    for rule in acting.boosts:
        for k in np.flatnonzero(selections.matching(rule, book)[placed.rows]).tolist():
            if k not in placed.promoted:
                placed.rules[k] = (*placed.rules[k], rule.id)
    return placed, trace.found


def _lists(chosen: list[int], rows: npt.NDArray[np.int64], fixed: dict[int, Placed], offset: int) -> Arranged:
    """Return the places, given the candidate of each, FIXED or EMPTY."""
    if not fixed:
        candidates = [k for k in chosen if k != EMPTY]
        return Arranged(candidates, rows[candidates].tolist(), [()] * len(candidates), {})
    placed = Arranged([], [], [], {})
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


def _fixed_places(
    pool: Pool, acting: Acting, selections: Selections, book: int, catalogue: Catalogue,
    rows: npt.NDArray[np.int64], order: Order, last: int, trace: _Trace,
) -> dict[int, Placed]:  # fmt: skip
    fixed: dict[int, Placed] = {}
    if not acting.fixing:
        return fixed
    candidate_of = {row: k for k, row in enumerate(rows.tolist())}
    taken: set[int] = set()

    def put(rule: Pin | Promote, row: int, wanted: int) -> bool:
        position = wanted
        while position in fixed:
            position += 1
        if position > last:
            return False
        fixed[position] = Placed(candidate_of.get(row, -1), row, rule.id)
        taken.add(row)
        return True

    for rule in acting.fixing:
        if isinstance(rule, Pin):
            put_there, refused = [], []
            for place, item in enumerate(rule.items):
                row = catalogue.row_of(hash_id(item))
                if row < 0 or row in taken or not (row in candidate_of or pool.allows(row)):
                    refused.append(item)
                elif put(rule, row, rule.position + place):
                    put_there.append(row)
            trace.say(rule, f"put at position {rule.position}", put_there)
            if refused:
                trace.note(rule, "may not be shown", refused)
        else:
            matching = selections.matching(rule, book)
            ranked = rows[order] if len(rows) else rows
            best = [row for row in ranked[matching[ranked]].tolist() if row not in taken]
            if len(best) < len(rule.positions):
                others = np.flatnonzero(matching).tolist()
                best += [row for row in others if row not in taken and row not in candidate_of and pool.allows(row)]
            put_there = [row for row, position in zip(best, rule.positions, strict=False) if put(rule, row, position)]
            trace.say(rule, f"at positions {', '.join(map(str, rule.positions))}", put_there)
    return fixed
