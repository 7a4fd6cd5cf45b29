"""Popularity of items at two half-lives, and the most popular items of each top list."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.stack_array import stack_array
from state.rows.decay import add, epoch_of, forward_score, forward_weight
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import COUNT, POP

COUNT_UNIT = 100.0
"""`count` and the globals' COUNT are in hundredths of an event weight."""

Scores = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint64]

_epochs, _sums = stack_array(np.int32, 2), stack_array(np.int64, 2, 2)


@njit_no_refcount()
def count_event(
    rows: ItemRows,
    slot: int,
    totals: npt.NDArray[np.int64],
    ts_ms: int,
    weight: float,
    half_lives_ms: npt.NDArray[np.int64],
) -> None:
    """Add an event's weight (negative: subtract) to its item and to the lane's totals."""
    total_epochs, total_sums = _epochs(), _sums()
    for h in range(2):
        total_epochs[h] = totals[POP + 3 * h]
        total_sums[h, 0], total_sums[h, 1] = totals[POP + 3 * h + 1], totals[POP + 3 * h + 2]
        epoch = epoch_of(ts_ms, half_lives_ms[h])
        amount = forward_weight(weight, ts_ms, half_lives_ms[h])
        add(rows[slot].pop_epoch, rows[slot].pop, h, epoch, amount)
        add(total_epochs, total_sums, h, epoch, amount)
        totals[POP + 3 * h] = total_epochs[h]
        totals[POP + 3 * h + 1], totals[POP + 3 * h + 2] = total_sums[h, 0], total_sums[h, 1]
    count_for_good(rows, slot, totals, weight)


@njit_no_refcount()
def count_for_good(rows: ItemRows, slot: int, totals: npt.NDArray[np.int64], weight: float) -> None:
    """Add a weight to what does not decay."""
    hundredths = np.int64(np.rint(weight * COUNT_UNIT))
    rows[slot].count += hundredths
    totals[COUNT] += hundredths


@njit()
def scores_of(
    rows: ItemRows, slots: npt.NDArray[np.int64], half_lives_ms: npt.NDArray[np.int64]
) -> tuple[Scores, Scores]:
    """Return the short and the long forward score of each slot's item."""
    short, long = np.empty(len(slots), np.float32), np.empty(len(slots), np.float32)
    for i in range(len(slots)):
        s = slots[i]
        short[i] = forward_score(rows[s].pop_epoch[0], rows[s].pop[0, 0], rows[s].pop[0, 1], half_lives_ms[0])
        long[i] = forward_score(rows[s].pop_epoch[1], rows[s].pop[1, 0], rows[s].pop[1, 1], half_lives_ms[1])
    return short, long


@njit()
def _keep_largest(scores: Scores, limit: int, keep: npt.NDArray[np.bool_]) -> None:
    order = np.argsort(-scores, kind="mergesort")  # stable: equal scores stay in id order
    for i in range(min(limit, len(order))):
        keep[order[i]] = True


@njit()
def merge_scope(
    items: Ids, short: Scores, long: Scores, new_items: Ids, new_short: Scores, new_long: Scores, limit: int
) -> tuple[Ids, Scores, Scores]:
    """Return the top list with the new scores in it, ascending by id.

    It keeps the `limit` most popular items at the long half-life and as many at the short
    one. Scores of untouched items fade alike and a touched item brings its
    whole score, so the list equals the one made from all items at once, as long as
    scores only grow.
    `items` and `new_items` ascend and hold no id twice.
    """
    n, m = len(items), len(new_items)
    all_items = np.empty(n + m, np.uint64)
    all_short, all_long = np.empty(n + m, np.float32), np.empty(n + m, np.float32)
    i = j = size = 0
    while i < n or j < m:
        if j < m and (i == n or new_items[j] <= items[i]):
            if i < n and items[i] == new_items[j]:
                i += 1
            all_items[size], all_short[size], all_long[size] = new_items[j], new_short[j], new_long[j]
            j += 1
        else:
            all_items[size], all_short[size], all_long[size] = items[i], short[i], long[i]
            i += 1
        size += 1
    all_items, all_short, all_long = all_items[:size], all_short[:size], all_long[:size]
    if size <= limit:
        return all_items, all_short, all_long
    keep = np.zeros(size, np.bool_)
    _keep_largest(all_short, limit, keep)
    _keep_largest(all_long, limit, keep)
    return all_items[keep], all_short[keep], all_long[keep]
