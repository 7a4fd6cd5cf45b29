"""The score that an item of a session adds to each of its neighbours, kept for a while.

The score of an item found is Σ over the session's items of rank weight · share · lift: rarity counts with closeness. Of
hundreds that are found a few are chosen; with their lifts kept here the rows of the others need not be read.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.prefetch import prefetch_head
from schemas.compiled.stack_array import stack_array
from schemas.compiled.vector_math import logarithms
from serving.scoring.item_features import KAPPA, ItemTable, cooccurrence, total_cooccurrence
from serving.scoring.second_order import KEPT, SecondOrder, second_order
from state.rows.item_rows import MAX_NEIGHBOURS, PAIR_UNIT
from state.rows.slot_map import ABSENT, find, look_for

SECOND_BASE = 0.3
LIFT = 0.5
NEVER = np.iinfo(np.int64).min

EXPANSION_DTYPE = np.dtype(
    [
        ("of", np.uint64),  # the item; 0: nothing here
        ("read_in", np.int64),  # of its row
        ("first_made", np.int64),
        ("second_made", np.int64),
        ("first", np.float64, MAX_NEIGHBOURS),  # by neighbour
        ("second", np.float64, KEPT),  # by item two steps away
    ]
)

_slots, _rarity = stack_array(np.int64, max(MAX_NEIGHBOURS, KEPT)), stack_array(np.float64, max(MAX_NEIGHBOURS, KEPT))


class ExpansionCache(NamedTuple):
    """Scores by slot of the item's row, valid as long as `second` is."""

    rows: npt.NDArray[np.void]  # of EXPANSION_DTYPE; memory is taken up where a slot is used
    second: SecondOrder
    read_in: npt.NDArray[np.int64]  # of each row: another number is another content


def new_expansion_cache(n_rows: int) -> ExpansionCache:
    """Return room for the items of a table of `n_rows` rows that do not change."""
    return ExpansionCache(np.zeros(n_rows, EXPANSION_DTYPE), second_order(n_rows), np.zeros(n_rows, np.int64))


@njit_no_refcount()
def _lift(
    table: ItemTable, items: npt.NDArray[np.uint64], n: int, sessions: int, scores: npt.NDArray[np.float64]
) -> bool:
    """Multiply `scores` by the items' lifts, 1 + ½ ln(sessions / support); return whether all of them have rows."""
    slots, rarity, all_there = _slots(), _rarity(), True
    for k in range(n):
        look_for(table.ids, table.slot_at, items[k])
    for k in range(n):
        slots[k] = find(table.ids, table.slot_at, items[k])
        if slots[k] != ABSENT:
            prefetch_head(table.rows, slots[k])
        else:
            all_there = False
    for k in range(n):
        support = max(table.rows[slots[k]].support, 1) if slots[k] != ABSENT else 1
        rarity[k] = max(sessions / support, 1.0)
    logarithms(rarity, n)
    for k in range(n):
        scores[k] *= 1.0 + LIFT * rarity[k]
    return all_there


@njit_no_refcount()
def expand(
    items: ItemTable, slot: int, item: np.uint64, sessions: int, two_steps: bool, expansion: ExpansionCache
) -> None:
    """Bring `expansion.rows[slot].first` up to date; `.second` too if `two_steps`, given `expansion.second.rows[slot]`.

    What an item without a row was counted in for is worked out again the next time.
    """
    rows, kept, second = items.rows, expansion.rows, expansion.second
    if kept[slot].of != item or kept[slot].read_in != expansion.read_in[slot]:
        kept[slot].of, kept[slot].read_in = item, expansion.read_in[slot]
        kept[slot].first_made = kept[slot].second_made = NEVER
    if kept[slot].first_made < second.oldest:
        n: Any = np.int64(rows[slot].n)
        scale = 1.0 / PAIR_UNIT / (total_cooccurrence(rows, slot) + KAPPA)
        for j in range(n):
            kept[slot].first[j] = cooccurrence(rows, slot, j) * scale
        there = _lift(items, rows[slot].neighbour, n, sessions, kept[slot].first)
        kept[slot].first_made = second.now if there else NEVER
    if two_steps and kept[slot].second_made < max(second.oldest, second.rows[slot].made):
        n = second.rows[slot].n
        for k in range(n):
            kept[slot].second[k] = SECOND_BASE * second.rows[slot].share[k]
        there = _lift(items, second.rows[slot].item, n, sessions, kept[slot].second)
        kept[slot].second_made = second.now if there else NEVER
