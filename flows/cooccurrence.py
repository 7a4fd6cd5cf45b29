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
    n = np.int64(rows[slot].n)
    for j in range(at, n - 1):
        rows[slot].neighbour[j] = rows[slot].neighbour[j + 1]
        for t in range(3):
            rows[slot].weight[t, j] = rows[slot].weight[t, j + 1]
    rows[slot].neighbour[n - 1] = 0
    for t in range(3):
        rows[slot].weight[t, n - 1] = 0
    rows[slot].n = n - 1


@numba.njit(cache=True)
def _lightest(rows: ItemRows, slot: int) -> int:
    lightest, least = 0, math.inf
    for j in range(np.int64(rows[slot].n)):
        weight = rows[slot].weight[ADJ, j] + rows[slot].weight[FAR, j] + 0.8 * rows[slot].weight[BWD, j]
        if weight < least:
            lightest, least = j, weight
    return lightest


@numba.njit(cache=True)
def add_pair(rows: ItemRows, slot: int, neighbour: np.uint64, kind: int, amount: int, capacity: int) -> None:
    """Add `amount` (negative: subtract) to one counter of the pair and to the row's total of that kind.

    A neighbour whose three counters are back at zero leaves the row. Subtracting
    from a neighbour that was cut from a full row changes the total only.
    """
    rows[slot].total[kind] += amount
    n = np.int64(rows[slot].n)
    at = _position(rows[slot].neighbour, n, neighbour)
    if at < n and rows[slot].neighbour[at] == neighbour:
        left = max(np.int64(rows[slot].weight[kind, at]) + amount, 0)
        rows[slot].weight[kind, at] = np.uint32(left)
        if left == 0 and rows[slot].weight[0, at] + rows[slot].weight[1, at] + rows[slot].weight[2, at] == 0:
            _remove_at(rows, slot, at)
        return
    if amount <= 0:
        return
    cut = n
    if n >= capacity:
        cut = _lightest(rows, slot)
    else:
        rows[slot].n = n + 1
    # Only what lies between the newcomer's place and the one given up moves.
    step = 1 if cut < at else -1
    place = at - 1 if cut < at else at
    for j in range(cut, place, step):
        rows[slot].neighbour[j] = rows[slot].neighbour[j + step]
    for t in range(3):
        for j in range(cut, place, step):
            rows[slot].weight[t, j] = rows[slot].weight[t, j + step]
        rows[slot].weight[t, place] = 0
    rows[slot].neighbour[place] = neighbour
    rows[slot].weight[kind, place] = np.uint32(amount)


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
