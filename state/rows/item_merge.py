"""Adds up the rows that several lanes keep of the same items.

Counters add up. Of the neighbours of all rows the MAX_NEIGHBOURS with the most pairs stay, ascending by id as in every
row. A server with one lane does without.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array
from state.rows.decay import merge
from state.rows.item_rows import MAX_NEIGHBOURS, ItemRows
from state.rows.row_codec import MOST_COUNTED

_items, _weights = stack_array(np.uint64, 2 * MAX_NEIGHBOURS), stack_array(np.int64, 2 * MAX_NEIGHBOURS, 3)
_sums, _turns = stack_array(np.int64, 2 * MAX_NEIGHBOURS), stack_array(np.int64, 2 * MAX_NEIGHBOURS)


@njit_no_refcount()
def add_rows(rows: ItemRows, slots: npt.NDArray[np.int64], parts: ItemRows, there: npt.NDArray[np.bool_]) -> None:
    """Add other lanes' rows to `rows[slots]`: `parts` has one row per slot and lane, lane by lane.

    Rows that are not `there` add nothing. Category, brand, price and first event stay those of `rows`.
    """
    for k in range(len(parts)):
        if there[k]:
            _add_row(rows[slots[k % len(slots)]], parts[k])


@njit_no_refcount()
def _add_row(row: Any, other: Any) -> None:
    row.support += other.support
    row.count += other.count
    for t in range(3):
        row.total[t] += other.total[t]
        row.kinds[t] += other.kinds[t]
    for t in range(4):
        row.repeat[t] += other.repeat[t]
    for h in range(2):
        merge(row.pop_epoch, row.pop, h, np.int64(other.pop_epoch[h]), other.pop[h, 0], other.pop[h, 1])  # type: ignore[arg-type]
    _merge_neighbours(row, other)


@njit_no_refcount()
def _merge_neighbours(row: Any, other: Any) -> None:
    """Write the neighbours of both with the most pairs into `row`; of equal ones those of `row` first, by id."""
    items, weights, sums, turns = _items(), _weights(), _sums(), _turns()
    n, m = np.int64(row.n), np.int64(other.n)
    i: Any = np.int64(0)
    j: Any = np.int64(0)
    size = 0
    while i < n or j < m:
        mine = i < n and (j == m or row.neighbour[i] <= other.neighbour[j])
        theirs = j < m and (i == n or other.neighbour[j] <= row.neighbour[i])
        items[size] = row.neighbour[i] if mine else other.neighbour[j]
        turns[size] = i if mine else MAX_NEIGHBOURS + j
        sums[size] = 0
        for t in range(3):
            weights[size, t] = 0
            if mine:
                weights[size, t] += np.int64(row.weight[t, i])
            if theirs:
                weights[size, t] += np.int64(other.weight[t, j])
            sums[size] += weights[size, t]
        i += np.int64(mine)
        j += np.int64(theirs)
        size += 1
    kept = 0
    for k in range(size):
        ahead = 0
        if size > MAX_NEIGHBOURS:
            for q in range(size):
                ahead += sums[q] > sums[k] or (sums[q] == sums[k] and turns[q] < turns[k])
        if ahead < MAX_NEIGHBOURS:
            row.neighbour[kept] = items[k]
            for t in range(3):
                row.weight[t, kept] = np.uint32(min(weights[k, t], MOST_COUNTED))  # type: ignore[arg-type]
            kept += 1
    row.n = kept
