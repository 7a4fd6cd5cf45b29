"""Which items could come next: neighbours of the session's items, their neighbours, and the session itself."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_head, prefetch_row
from schemas.compiled.stack_array import stack_array
from schemas.compiled.top_k import largest
from schemas.compiled.vector_math import bits_of, of_bits
from serving.scoring.candidate_table import MAX_CANDIDATES, CandidateTable, accumulate, begin, new_candidate_table
from serving.scoring.expansion_cache import ExpansionCache, expand
from serving.scoring.item_features import FADES, KAPPA, total_cooccurrence
from serving.scoring.parameters import MixtureParams
from serving.scoring.second_order import KEPT, look_two_steps
from serving.scoring.tree_ensemble import N_PAIRS
from state.rows.item_rows import MAX_NEIGHBOURS, PAIR_UNIT, ItemRows
from state.rows.lane_rows import SESSIONS
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import ABSENT, find, look_for

SECOND_SEEDS = 3
ROWS_AHEAD = 2
"""Rows of a session's items to ask for ahead of the one in work (`schemas.compiled.prefetch`)."""
BY_SECOND, BY_POPULARITY, BY_REPEAT = 3, 4, 5
"""Why an item is in the list: ADJ, FAR, BWD from a seed, or one of these."""

ORIGINS = 63
"""The lowest bits of a contribution give way to where it came from: then the largest of them is found by comparing."""

CANDIDATE_DTYPE = np.dtype(
    [
        ("item", np.uint64),
        ("slot", np.int64),  # of the item's row, ABSENT where there is none
        ("base", np.float64),  # what it was chosen by
        ("direct", np.float64),  # Σ weight · component over the pair components
        ("second", np.float64, 2),
        ("best", np.int64),  # the largest weighted contribution and where it came from (`best_of`)
        ("hits", np.int64),
        ("pairs", np.float32, N_PAIRS),  # for trees: shares by seed and kind
    ],
    align=True,
)

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class Candidates(NamedTuple):
    """The chosen items of one session, and scratch to find them."""

    of: npt.NDArray[np.void]  # of CANDIDATE_DTYPE, the session's items first
    first: Int64s  # (MAX_DISTINCT, MAX_NEIGHBOURS): which was found, then which was chosen, of each item's neighbours
    second: Int64s  # (SECOND_SEEDS, KEPT): likewise, of those two steps away
    rank: Int64s  # (MAX_CANDIDATES,): where an item found stands among the chosen; behind them: not at all
    chosen: Int64s  # (width,): indexes of the items found
    found: CandidateTable


_direct, _best = stack_array(np.float64, MAX_NEIGHBOURS), stack_array(np.int64, MAX_NEIGHBOURS)


@njit()
def new_candidates(n_others: int) -> Candidates:
    """Return room for a session's items and `n_others` more."""
    width = MAX_DISTINCT + n_others
    return Candidates(
        np.empty(width + 1, CANDIDATE_DTYPE), np.empty((MAX_DISTINCT, MAX_NEIGHBOURS), np.int64),
        np.empty((SECOND_SEEDS, KEPT), np.int64), np.empty(MAX_CANDIDATES, np.int64), np.empty(width, np.int64),
        new_candidate_table(),
    )  # fmt: skip


@njit_no_refcount()
def rank_bucket(rank: int) -> int:
    """Return which row of `MixtureParams.pairs` a recency rank uses: 0, 1, 2, 3-4, 5-9, 10+."""
    if rank < 3:
        return rank
    if rank < 5:
        return 3
    return 4 if rank < 10 else 5


@njit_no_refcount()
def _find(
    distinct: Uint64s, slots: Int64s, m: int, rows: ItemRows, leads: ExpansionCache, candidates: Candidates
) -> int:
    """Find what the session leads to and what it is worth; return how many items."""
    found, second, n = candidates.found, leads.second.rows, 0
    begin(found)
    for r in range(m):
        _, n = accumulate(found, n, distinct[r], 0.0)
    for r in range(m):
        slot = slots[r]
        if slot == ABSENT:
            continue
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(leads.rows, slots[r + ROWS_AHEAD])
        fade = FADES[r]
        for j in range(np.int64(rows[slot].n)):
            score = fade * leads.rows[slot].first[j]
            candidates.first[r, j], n = accumulate(found, n, rows[slot].neighbour[j], score)
        if r < SECOND_SEEDS:
            for k in range(second[slot].n):
                score = fade * leads.rows[slot].second[k]
                candidates.second[r, k], n = accumulate(found, n, second[slot].item[k], score)
    return n


@njit_no_refcount()
def _choose(n: int, m: int, n_others: int, for_trees: bool, candidates: Candidates) -> int:
    """Choose the session's `m` items and the `n_others` others worth most, of `n` found; return how many."""
    of, found, rank, chosen = candidates.of, candidates.found, candidates.rank, candidates.chosen
    for i in range(m):
        chosen[i] = i
    n_chosen = m + largest(found.score[m:n], n_others, chosen[m:])
    for i in range(m, n_chosen):
        chosen[i] += m
    rank[:n] = n_chosen
    for i in range(n_chosen):
        rank[chosen[i]] = i
        of[i].item, of[i].base = found.item[chosen[i]], found.score[chosen[i]]
    for i in range(n_chosen + 1):  # the last one takes what would go to those that were not chosen
        of[i].direct = of[i].second[0] = of[i].second[1] = 0.0
        of[i].hits = of[i].best = 0
        if for_trees:
            of[i].pairs[:] = np.float32(0.0)
    return n_chosen


@njit_no_refcount()
def best_of(best: int) -> tuple[float, int, int]:
    """Return (largest weighted contribution, rank of the session's item it came from, kind)."""
    if best == 0:
        return 0.0, 0, BY_POPULARITY
    origin = ORIGINS - (best & ORIGINS)
    return of_bits(best & ~ORIGINS), origin // 3, origin % 3  # type: ignore[call-arg]


@njit_no_refcount()
def _add_up(
    slots: Int64s,
    m: int,
    rows: ItemRows,
    leads: ExpansionCache,
    p: MixtureParams,
    for_trees: bool,
    candidates: Candidates,
) -> None:
    """Sum up what each item of the session says of the chosen ones."""
    of, rank, second, direct, best = candidates.of, candidates.rank, leads.second.rows, _direct(), _best()
    for r in range(m):
        slot = slots[r]
        if slot == ABSENT:
            continue
        n, weight, gain_of = np.int64(rows[slot].n), rows[slot].weight, p.pairs[rank_bucket(r)]
        scale, pair = 1.0 / PAIR_UNIT / (total_cooccurrence(rows, slot) + KAPPA), 3 * min(r, 2)
        for j in range(n):  # side by side
            direct[j], best[j] = 0.0, 0
            for t in range(3):
                gain = gain_of[t] * (weight[t, j] * scale)
                direct[j] += gain
                origin = ORIGINS - (3 * r + t)  # of equal ones the first
                best[j] = max(best[j], bits_of(gain) & ~ORIGINS | origin)  # type: ignore[call-arg]
        for j in range(n):
            i = rank[candidates.first[r, j]]
            candidates.first[r, j] = i
            of[i].direct += direct[j]
            of[i].best = max(of[i].best, best[j])
            of[i].hits += 1
            if for_trees:
                for t in range(3):
                    of[i].pairs[pair + t] += np.float32(weight[t, j] * scale)
        if r < SECOND_SEEDS:
            fade, which = FADES[r], min(r, 1)
            for k in range(second[slot].n):
                of[rank[candidates.second[r, k]]].second[which] += fade * second[slot].share[k]


@njit_no_refcount()
def find_candidates(
    rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32], distinct: Uint64s, slots: Int64s, m: int,
    totals: Int64s, p: MixtureParams, n_others: int, for_trees: bool, leads: ExpansionCache, candidates: Candidates,
) -> int:  # fmt: skip
    """Fill `candidates.of`; return how many they are.

    They are the session's own `m` distinct items (`slots`: of their rows), which come first, and the `n_others` others
    that are worth most. `candidates.first[r, j]` says which of them neighbour j of the session's item r is, one behind
    them: none.
    """
    sessions = max(totals[SESSIONS], 1)
    for r in range(m):
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(rows, slots[r + ROWS_AHEAD])
        if slots[r] != ABSENT:
            two_steps = r < SECOND_SEEDS
            if two_steps:
                look_two_steps(
                    rows, table, slot_at, slots[r], distinct[r], leads.second, candidates.found
                )  # fmt: skip
            expand(rows, table, slot_at, slots[r], distinct[r], sessions, two_steps, leads)
    n = _choose(_find(distinct, slots, m, rows, leads, candidates), m, n_others, for_trees, candidates)
    for i in range(n):  # rows in random order: each is asked for while other things are done
        look_for(table, slot_at, candidates.of[i].item)
    _add_up(slots, m, rows, leads, p, for_trees, candidates)
    for i in range(n):
        slot = find(table, slot_at, candidates.of[i].item)
        candidates.of[i].slot = slot
        if slot != ABSENT:
            prefetch_head(rows, slot)
    return n
