"""Which items could come next: neighbours of the session's items, their neighbours, and the session itself."""

import math

import numpy as np
import numpy.typing as npt

from schemas.uncounted import uncounted
from serving.found import Found, begin_search, place
from serving.item_facts import BWD_MASS, KAPPA, SEED_DECAY, mass_of
from serving.largest import largest
from serving.mixture import MixtureParams
from serving.second_order import SecondOrder, look_two_steps
from state.item_rows import BWD, PAIR_UNIT, ItemRows
from state.lane_rows import SESSIONS
from state.prefetch import prefetch_head, prefetch_line, prefetch_row
from state.slot_map import ABSENT, find

SECOND_SEEDS = 3
SECOND_BASE = 0.3
ITEMS_AHEAD, ROWS_AHEAD = 12, 2
"""Rows to ask for ahead of the one in work (`state.prefetch`): of items found, and of those read whole."""

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


@uncounted()
def rank_bucket(rank: int) -> int:
    """Return which row of `MixtureParams.pairs` a recency rank uses: 0, 1, 2, 3-4, 5-9, 10+."""
    if rank < 3:
        return rank
    if rank < 5:
        return 3
    return 4 if rank < 10 else 5


@uncounted()
def _first_order(rows: ItemRows, slot: int, rank: int, p: MixtureParams, found: Found, n: int, for_trees: bool) -> int:
    scale = 1.0 / PAIR_UNIT / (mass_of(rows, slot) + KAPPA)
    bucket, fade = rank_bucket(rank), math.exp(-rank / SEED_DECAY)
    first = 3 * min(rank, 2)
    for j in range(np.int64(rows[slot].n)):
        at, n = place(found, n, rows[slot].neighbour[j])
        found.of[at].hits += np.int32(1)
        for t in range(3):
            share = rows[slot].weight[t, j] * scale
            gain = p.pairs[bucket, t] * share
            found.of[at].direct += gain
            found.of[at].base += fade * share * (BWD_MASS if t == BWD else 1.0)
            if for_trees:
                found.of[at].pairs[first + t] += np.float32(share)
            if gain > found.of[at].best:
                found.of[at].best, found.of[at].best_seed, found.of[at].best_kind = gain, rank, t
    return n


@uncounted()
def find_candidates(
    rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32], distinct: Uint64s, slots: Int64s, m: int,
    totals: Int64s, p: MixtureParams, n_candidates: int, found: Found, chosen: Int64s, for_trees: bool,
    second: SecondOrder,
) -> tuple[int, int]:  # fmt: skip
    """Fill `found`; write the indexes of the chosen candidates into `chosen`; return (how many, items found).

    Chosen are the session's own `m` distinct items (`slots`: of their rows), which stand first in `found`, and
    the `n_candidates` others with the largest base score.
    """
    for r in range(min(m, SECOND_SEEDS)):
        if slots[r] != ABSENT:
            look_two_steps(rows, table, slot_at, slots[r], distinct[r], second, found)
    begin_search(found)
    n = 0
    for r in range(m):
        _, n = place(found, n, distinct[r])
    for r in range(m):
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(rows, slots[r + ROWS_AHEAD])
        slot = slots[r]
        if slot != ABSENT:
            n = _first_order(rows, slot, r, p, found, n, for_trees)
    for r in range(min(m, SECOND_SEEDS)):
        slot = slots[r]
        if slot != ABSENT:
            fade, which = math.exp(-r / SEED_DECAY), min(r, 1)
            for k in range(second.rows[slot].n):
                at, n = place(found, n, second.rows[slot].item[k])
                found.of[at].second[which] += fade * second.rows[slot].share[k]
    sessions = max(totals[SESSIONS], 1)
    mask = np.uint64(len(table) - 1)
    for i in range(n):  # hundreds of rows in random order: each is asked for while those before are looked up
        if i + ITEMS_AHEAD < n:
            at = np.int64(found.of[i + ITEMS_AHEAD].item & mask)
            prefetch_line(table, at)
            prefetch_line(slot_at, at)
        slot = find(table, slot_at, found.of[i].item)
        found.of[i].slot = slot
        if slot != ABSENT:
            prefetch_head(rows, slot)
    base = found.worth[:n]
    for i in range(n):
        slot = found.of[i].slot
        support = max(rows[slot].support, 1) if slot != ABSENT else 1
        found.of[i].base += SECOND_BASE * (found.of[i].second[0] + found.of[i].second[1])
        found.of[i].base *= 1.0 + 0.5 * math.log(max(sessions / support, 1.0))
        base[i] = found.of[i].base
    for i in range(m):
        chosen[i] = i
    n_others = largest(base[m:], n_candidates, chosen[m:])
    for i in range(m, m + n_others):
        chosen[i] += m
    return m + n_others, n
