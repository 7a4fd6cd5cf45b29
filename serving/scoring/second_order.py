"""The items two steps from an item (neighbours of its neighbours), computed once and kept for a while.

Two steps read thousands of counters, and a few seeds need most of the walks. Only the KEPT strongest
are kept of each: with 32, 64, 128 or all of them lists were equally good (docs/quality.md).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.prefetch import prefetch_row
from schemas.compiled.stack_array import stack_array
from schemas.compiled.top_k import largest
from serving.scoring.candidate_table import CandidateTable, accumulate, begin
from serving.scoring.item_features import KAPPA, ItemTable, cooccurrence, total_cooccurrence
from state.rows.item_rows import MAX_NEIGHBOURS, PAIR_UNIT
from state.rows.slot_map import ABSENT, find

KEPT = 64
LEAST_SHARE = 0.02
"""Neighbours with less of an item's pairs are not walked through."""
ROWS_AHEAD = 2

SECOND_DTYPE = np.dtype(
    [
        ("of", np.uint64),  # the item; 0: nothing here
        ("made", np.int64),
        ("n", np.int64),
        ("item", np.uint64, KEPT),
        ("share", np.float64, KEPT),
    ]
)


class SecondOrder(NamedTuple):
    """The cached results, by slot of the item's row, and how long they are valid."""

    rows: npt.NDArray[np.void]  # of SECOND_DTYPE; memory is taken up where a slot is used
    now: int
    oldest: int  # what was made before is made again


_middles, _shares = stack_array(np.int64, MAX_NEIGHBOURS), stack_array(np.float64, MAX_NEIGHBOURS)
_strongest = stack_array(np.int64, KEPT)


def second_order(n_rows: int) -> SecondOrder:
    """Return room for the items of a table of `n_rows` rows that do not change."""
    return SecondOrder(np.zeros(n_rows, SECOND_DTYPE), 1, 1)


@njit_no_refcount()
def walk_two_steps(items: ItemTable, slot: int, item: np.uint64, second: SecondOrder, found: CandidateTable) -> None:
    """Bring `second.rows[slot]` up to date: Σ over neighbours k of share(item, k) · share(k, j), j not the item itself.

    `found` is scratch.
    """
    rows, kept = items.rows, second.rows
    if kept[slot].of == item and kept[slot].made >= second.oldest:
        return
    begin(found)
    scale = 1.0 / PAIR_UNIT / (total_cooccurrence(rows, slot) + KAPPA)
    middles, shares, m, n = _middles(), _shares(), 0, 0
    for k in range(np.int64(rows[slot].n)):
        through = cooccurrence(rows, slot, k) * scale
        if through < LEAST_SHARE:
            continue
        middle = find(items.ids, items.slot_at, rows[slot].neighbour[k])
        if middle != ABSENT:
            middles[m], shares[m] = middle, through
            m += 1
    for k in range(m):
        if k + ROWS_AHEAD < m:
            prefetch_row(rows, middles[k + ROWS_AHEAD])
        middle = middles[k]
        step = shares[k] / PAIR_UNIT / (total_cooccurrence(rows, middle) + KAPPA)
        for j in range(np.int64(rows[middle].n)):
            if rows[middle].neighbour[j] == item:
                continue
            _, n = accumulate(found, n, rows[middle].neighbour[j], step * cooccurrence(rows, middle, j))
    strongest = _strongest()
    n_kept = largest(found.score[:n], KEPT, strongest)
    for k in range(n_kept):
        kept[slot].item[k], kept[slot].share[k] = found.item[strongest[k]], found.score[strongest[k]]
    kept[slot].of, kept[slot].made, kept[slot].n = item, second.now, n_kept
