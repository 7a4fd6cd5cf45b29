"""Rules applied to the candidates of one answer. They override the model, and say what they did.

Rules that leave items out have acted before, on the selection. Here, in this order:
boosts multiply, the list is sorted and made diverse, pins and promotions take their
places, and caps bound what fills the rest. Pins and promotions come before caps.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.catalogue import Catalogue
from serving.columns import TextColumn
from serving.pool import Pool
from serving.requests import RuleTrace
from serving.rules import Boost, Cap, Pin, Promote, Rule
from serving.selection import Selections

MAX_TRACED = 50
Order = npt.NDArray[np.int64]


class Placed(NamedTuple):
    """One place of the list: a candidate's index (-1: brought by a rule), its row, and the rules that moved it."""

    candidate: int
    row: int
    rules: list[str]
    promoted_by: str


class _Trace:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.found: list[RuleTrace] = []

    def say(self, rule: Rule, effect: str, rows: Sequence[int]) -> None:
        items = [self._catalogue.ids[row] for row in list(rows)[:MAX_TRACED]]
        self.found.append(RuleTrace(rule.id, rule.action, effect, items))


def arrange(
    pool: Pool, rules: Sequence[Rule], selections: Selections, book: int, catalogue: Catalogue, count: int,
    offset: int, vary: Callable[[Order, npt.NDArray[np.float64], npt.NDArray[np.int64]], Order] | None,
) -> tuple[list[Placed], list[RuleTrace]]:  # fmt: skip
    """Return the places `offset + 1` to `offset + count` and what each rule did.

    `vary(order, worth, rows)` makes an order diverse.
    """
    rows, _, worth, _ = pool.arrays()
    trace = _Trace(catalogue)
    boosts = [rule for rule in rules if isinstance(rule, Boost)]
    moved: dict[int, list[str]] = defaultdict(list)
    order = np.arange(len(rows))
    if boosts and len(rows):
        worth = worth.copy()
        for rule in boosts:
            touched = np.flatnonzero(selections.matching(rule, book)[rows])
            worth[touched] *= rule.factor
            for k in touched.tolist():
                moved[k].append(rule.id)
            trace.say(rule, f"scores times {rule.factor:g}", rows[touched].tolist())
        order = np.argsort(-worth, kind="stable")
    if vary is not None and len(order):
        order = vary(order, worth, rows)
    fixed = _fixed_places(pool, rules, selections, book, catalogue, rows, order, offset + count, trace)
    taken = {place.row for place in fixed.values()}
    caps = [_Cap(rule, catalogue) for rule in rules if isinstance(rule, Cap)]
    if not fixed and not caps:
        return [Placed(k, int(rows[k]), moved.get(k, []), "") for k in order[:count].tolist()], trace.found
    for cap in caps:
        cap.expect(rows)
        cap.expect(np.array(sorted(taken), np.int64))
        for position, place in fixed.items():
            cap.count(place.row, position)
    row_of: list[int] = rows.tolist()
    waiting = [k for k in order.tolist() if row_of[k] not in taken] if taken else order.tolist()
    placed: list[Placed] = []
    for position in range(offset + 1, offset + count + 1):  # what lies before was on an earlier page
        here = fixed.get(position)
        if here is None and waiting:
            here = _next(waiting, row_of, caps, position, moved)
            if here is None:  # what comes behind would move up to where it must not be
                waiting = []
        if here is not None:
            placed.append(here)
    for cap in caps:
        if cap.held_back:
            trace.say(
                cap.rule, f"at most {cap.rule.most} of one {cap.rule.by} in {cap.rule.first}", list(cap.held_back)
            )
    return placed, trace.found


def _next(
    waiting: list[int], row_of: list[int], caps: list["_Cap"], position: int, moved: dict[int, list[str]]
) -> Placed | None:
    """Take the first candidate that no cap holds back at this position out of `waiting`."""
    for at, k in enumerate(waiting):
        row = row_of[k]
        for cap in caps:
            if not cap.allows(row, position):
                break
        else:
            for cap in caps:
                cap.count(row, position)
            del waiting[at]
            return Placed(k, row, moved.get(k, []), "")
    return None


def _fixed_places(
    pool: Pool, rules: Sequence[Rule], selections: Selections, book: int, catalogue: Catalogue,
    rows: npt.NDArray[np.int64], order: Order, last: int, trace: _Trace,
) -> dict[int, Placed]:  # fmt: skip
    fixed: dict[int, Placed] = {}
    if not any(isinstance(rule, Pin | Promote) for rule in rules):
        return fixed
    candidate_of = {row: k for k, row in enumerate(rows.tolist())}
    taken: set[int] = set()

    def put(rule: Pin | Promote, row: int, wanted: int) -> bool:
        position = wanted
        while position in fixed:
            position += 1
        if position > last:
            return False
        fixed[position] = Placed(candidate_of.get(row, -1), row, [rule.id], rule.id)
        taken.add(row)
        return True

    for rule in rules:
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
                trace.found.append(RuleTrace(rule.id, rule.action, "may not be shown", refused[:MAX_TRACED]))
        elif isinstance(rule, Promote):
            matching = selections.matching(rule, book)
            ranked = rows[order] if len(rows) else rows
            best = [row for row in ranked[matching[ranked]].tolist() if row not in taken]
            if len(best) < len(rule.positions):
                others = np.flatnonzero(matching).tolist()
                best += [row for row in others if row not in taken and row not in candidate_of and pool.allows(row)]
            put_there = [row for row, position in zip(best, rule.positions, strict=False) if put(rule, row, position)]
            trace.say(rule, f"at positions {', '.join(map(str, rule.positions))}", put_there)
    return fixed


class _Cap:
    """How many of each category, brand or seller are among the first so far."""

    def __init__(self, rule: Cap, catalogue: Catalogue) -> None:
        self.rule = rule
        self._column: TextColumn = getattr(catalogue, rule.by)
        self._code_of: dict[int, int] = {}
        self._n: dict[int, int] = defaultdict(int)
        self.held_back: dict[int, None] = {}

    def expect(self, rows: npt.NDArray[np.int64]) -> None:
        """Look up at once what rows will be asked about."""
        self._code_of.update(zip(rows.tolist(), self._column.codes(rows).tolist(), strict=True))

    def allows(self, row: int, position: int) -> bool:
        code = self._code_of[row]
        fits = position > self.rule.first or code == 0 or self._n[code] < self.rule.most
        if not fits:
            self.held_back[row] = None
        return fits

    def count(self, row: int, position: int) -> None:
        if position <= self.rule.first:
            self._n[self._code_of[row]] += 1
