"""Pairs with direction: which item follows, trails or precedes which in a session.

When item y arrives, its latest other distinct items x (recency rank d) are paired
with it: `adj[x, y]` for d = 0, `far[x, y]` for d >= 1, and `bwd[y, x]` for every d,
each by `round(100 · exp(-d / 1.8))` (hundredths of a pair). Everything added can be
subtracted again with sign -1. A full row gives up its lightest neighbour, and the
newcomer starts with its own weight only.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from state.item_rows import ADJ, BWD, FAR, PAIR_UNIT, ItemRows

MAX_WINDOW = 8
RANK_DECAY = 1.8
AMOUNTS = np.array([round(PAIR_UNIT * math.exp(-d / RANK_DECAY)) for d in range(MAX_WINDOW)], np.int64)


@numba.njit(cache=True)
def _position(neighbours: npt.NDArray[np.uint64], n: int, item: np.uint64) -> int:
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if neighbours[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def _remove_at(rows: ItemRows, slot: int, at: int) -> None:
    n = np.int64(rows.n[slot])
    for j in range(at, n - 1):
        rows.neighbour[slot, j] = rows.neighbour[slot, j + 1]
        for t in range(3):
            rows.weight[slot, t, j] = rows.weight[slot, t, j + 1]
    rows.neighbour[slot, n - 1] = 0
    for t in range(3):
        rows.weight[slot, t, n - 1] = 0
    rows.n[slot] = n - 1


@numba.njit(cache=True)
def _lightest(rows: ItemRows, slot: int) -> int:
    lightest, least = 0, math.inf
    for j in range(np.int64(rows.n[slot])):
        weight = rows.weight[slot, ADJ, j] + rows.weight[slot, FAR, j] + 0.8 * rows.weight[slot, BWD, j]
        if weight < least:
            lightest, least = j, weight
    return lightest


@numba.njit(cache=True)
def add_pair(rows: ItemRows, slot: int, neighbour: np.uint64, kind: int, amount: int, capacity: int) -> None:
    """Add `amount` (negative: subtract) to one counter of the pair and to the row's total of that kind.

    A neighbour whose three counters are back at zero leaves the row. Subtracting
    from a neighbour that was cut from a full row changes the total only.
    """
    rows.total[slot, kind] += amount
    n = np.int64(rows.n[slot])
    at = _position(rows.neighbour[slot], n, neighbour)
    if at < n and rows.neighbour[slot, at] == neighbour:
        left = max(np.int64(rows.weight[slot, kind, at]) + amount, 0)
        rows.weight[slot, kind, at] = np.uint32(left)
        if left == 0 and rows.weight[slot, 0, at] + rows.weight[slot, 1, at] + rows.weight[slot, 2, at] == 0:
            _remove_at(rows, slot, at)
        return
    if amount <= 0:
        return
    cut = n
    if n >= capacity:
        cut = _lightest(rows, slot)
    else:
        rows.n[slot] = n + 1
    # Only what lies between the newcomer's place and the one given up moves.
    step = 1 if cut < at else -1
    place = at - 1 if cut < at else at
    for j in range(cut, place, step):
        rows.neighbour[slot, j] = rows.neighbour[slot, j + step]
    for t in range(3):
        for j in range(cut, place, step):
            rows.weight[slot, t, j] = rows.weight[slot, t, j + step]
        rows.weight[slot, t, place] = 0
    rows.neighbour[slot, place] = neighbour
    rows.weight[slot, kind, place] = np.uint32(amount)


@numba.njit(cache=True)
def learn_pairs(
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
