"""Pairs with direction: which item follows, trails or precedes which in a session.

When item y arrives, its latest other distinct items x (recency rank d) are paired
with it: `adj[x, y]` for d = 0, `far[x, y]` for d >= 1, and `bwd[y, x]` for every d,
each by `round(100 · exp(-d / 1.8))` (hundredths of a pair). Everything added can be
subtracted again with sign -1. A full row gives up its lightest neighbour, and the
newcomer starts with its own weight only.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from state.rows.item_rows import ADJ, BWD, FAR, MANY_GONE, MAX_GONE, PAIR_UNIT, ItemRows, shift
from state.rows.row_codec import counted

MAX_WINDOW = 8
RANK_DECAY = 1.8
AMOUNTS = np.array([round(PAIR_UNIT * math.exp(-d / RANK_DECAY)) for d in range(MAX_WINDOW)], np.int64)


@njit_no_refcount()
def _position(neighbours: npt.NDArray[np.uint64], n: int, item: np.uint64) -> int:
    at = 0
    for j in range(n):  # all of them, in vector registers: a search by halves is mispredicted at every step
        at += neighbours[j] < item
    return at


@njit_no_refcount()
def _weigh(row: Any, j: int) -> int:
    """Return five times what neighbour j weighs: adj + far + 0.8 bwd, in integers."""
    return 5 * (np.int64(row.weight[ADJ, j]) + np.int64(row.weight[FAR, j])) + 4 * np.int64(row.weight[BWD, j])  # type: ignore[return-value]


@njit_no_refcount()
def _lightest(row: Any) -> int:
    n = np.int64(row.n)
    least = _weigh(row, 0)
    for j in range(1, n):  # the least first and then where it is: both loops run in vector registers
        least = min(least, _weigh(row, j))
    for j in range(n):
        if _weigh(row, j) == least:
            return j
    return 0


@njit_no_refcount()
def _shift_changed(row: Any, hole: int, place: int) -> None:
    """Do to the marks of changed neighbours what `shift` does to the neighbours; the mark at `place` is then free."""
    one, marks = np.uint64(1), row.changed
    below = (one << np.uint64(hole)) - one
    marks = (marks & below) | ((marks >> one) & ~below)
    below = (one << np.uint64(place)) - one
    row.changed = (marks & below) | ((marks & ~below) << one)


@njit_no_refcount()
def _note_gone(row: Any, neighbour: np.uint64) -> None:
    n = np.int64(row.n_gone)
    if n < MAX_GONE:
        row.gone[n] = neighbour
        row.n_gone = n + 1
    else:
        row.n_gone = MANY_GONE


@njit_no_refcount()
def add_pair(rows: ItemRows, slot: int, neighbour: np.uint64, kind: int, amount: int, capacity: int) -> None:
    """Add `amount` (negative: subtract) to one counter of the pair and to the row's total of that kind.

    A neighbour whose three counters are back at zero leaves the row. Subtracting
    from a neighbour that was cut from a full row changes the total only.
    """
    row = rows[slot]
    row.total[kind] += amount
    n: Any = np.int64(row.n)
    at = _position(row.neighbour, n, neighbour)
    if at < n and row.neighbour[at] == neighbour:
        left = counted(max(np.int64(row.weight[kind, at]) + amount, 0), 0)  # type: ignore[arg-type]
        row.weight[kind, at] = np.uint32(left)
        row.changed |= np.uint64(1) << np.uint64(at)
        if left == 0 and _weigh(row, at) == 0:
            _note_gone(row, neighbour)
            _shift_changed(row, at, n - 1)
            row.changed &= ~(np.uint64(1) << np.uint64(n - 1))
            shift(row.neighbour, at, n - 1)
            row.neighbour[n - 1] = 0
            for t in range(3):
                shift(row.weight[t], at, n - 1)
                row.weight[t, n - 1] = 0
            row.n = n - 1
        return
    if amount <= 0:
        return
    cut = n
    if n >= capacity:
        cut = _lightest(row)
        _note_gone(row, row.neighbour[cut])
    else:
        row.n = n + 1
    place = at - 1 if cut < at else at
    _shift_changed(row, cut, place)
    row.changed |= np.uint64(1) << np.uint64(place)
    shift(row.neighbour, cut, place)
    row.neighbour[place] = neighbour
    for t in range(3):
        shift(row.weight[t], cut, place)
        row.weight[t, place] = 0
    row.weight[kind, place] = np.uint32(amount)


@njit_no_refcount()
def count_pairs(
    rows: ItemRows,
    item: np.uint64,
    item_slot: int,
    distinct: npt.NDArray[np.uint64],
    distinct_slots: npt.NDArray[np.int64],
    n_distinct: int,
    window: int,
    capacity: int,
    sign: int,
) -> None:
    """Pair an arriving item with the `window` latest other distinct items of its session."""
    rank = 0
    for r in range(n_distinct):
        if rank == window:
            break
        if distinct[r] == item:
            continue
        amount = sign * AMOUNTS[rank]
        add_pair(rows, distinct_slots[r], item, ADJ if rank == 0 else FAR, amount, capacity)
        add_pair(rows, item_slot, distinct[r], BWD, amount, capacity)
        rank += 1
