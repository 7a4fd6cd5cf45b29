"""The candidates of a session: neighbours of its items, their neighbours, and the items themselves."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_head, prefetch_row
from schemas.compiled.top_k import largest
from serving.scoring.candidate_table import MAX_CANDIDATES, CandidateTable, accumulate, begin, new_candidate_table
from serving.scoring.expansion_cache import ExpansionCache, expand
from serving.scoring.item_features import RANK_WEIGHTS, ItemTable
from serving.scoring.second_order import KEPT, walk_two_steps
from state.rows.item_rows import MAX_NEIGHBOURS, ItemRows
from state.rows.session import MAX_DISTINCT, SESSION_EVENTS, distinct_latest_first, repeat_cells
from state.rows.slot_map import ABSENT, find, look_for

SECOND_SEEDS = 3
"""Items of the session, the latest ones, from which paths of two steps are followed."""
ROWS_AHEAD = 2
"""Rows of a session's items to ask for ahead of the one in work (`schemas.compiled.prefetch`)."""

Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class SessionItems(NamedTuple):
    """Distinct items of a session, the current one first."""

    item: Uint64s  # (SESSION_EVENTS,)
    place: Int8s  # (SESSION_EVENTS,): which of `item` each event was of
    slot: Int64s  # (MAX_DISTINCT,): of their rows, ABSENT where there is none
    cell: Int64s  # (MAX_DISTINCT,): of the repeat tables (`state.rows.session.repeat_cells`)


class Candidates(NamedTuple):
    """The chosen items of one session, and scratch to find them."""

    item: Uint64s  # (width,), the session's own items first
    slot: Int64s  # (width,): of their rows, ABSENT where there is none
    score: npt.NDArray[np.float64]  # (width,): what they were chosen by
    first: Int64s  # (MAX_DISTINCT, MAX_NEIGHBOURS): index among those found of each neighbour of the session's items
    second: Int64s  # (SECOND_SEEDS, KEPT): likewise, of those two steps away
    rank: Int64s  # (MAX_CANDIDATES,): where an item found stands among the chosen; behind them: not at all
    chosen: Int64s  # (width,): indexes of the chosen among those found
    found: CandidateTable


@njit()
def new_session_items() -> SessionItems:
    """Return room for one session."""
    return SessionItems(
        np.empty(SESSION_EVENTS, np.uint64), np.empty(SESSION_EVENTS, np.int8), np.empty(MAX_DISTINCT, np.int64),
        np.empty(MAX_DISTINCT, np.int64),
    )  # fmt: skip


@njit()
def new_candidates(n_others: int) -> Candidates:
    """Return room for a session's items and `n_others` more."""
    width = MAX_DISTINCT + n_others
    return Candidates(
        np.empty(width, np.uint64), np.empty(width, np.int64), np.empty(width),
        np.empty((MAX_DISTINCT, MAX_NEIGHBOURS), np.int64), np.empty((SECOND_SEEDS, KEPT), np.int64),
        np.empty(MAX_CANDIDATES, np.int64), np.empty(width, np.int64), new_candidate_table(),
    )  # fmt: skip


@njit_no_refcount()
def read_session(events: Uint64s, n_events: int, items: ItemTable, session: SessionItems) -> int:
    """Write the distinct items of a session's events (oldest first) and their rows; return how many count."""
    n_distinct = distinct_latest_first(events, n_events, session.item, session.place)
    m = min(n_distinct, MAX_DISTINCT)
    if m > 0:
        repeat_cells(session.place, n_events, n_distinct, session.cell)
    for r in range(m):
        session.slot[r] = find(items.ids, items.slot_at, session.item[r])
    return m


@njit_no_refcount()
def _find(
    distinct: Uint64s, slots: Int64s, m: int, rows: ItemRows, expansion: ExpansionCache, candidates: Candidates
) -> int:
    """Find the items one and two steps from the session's, and their scores; return how many."""
    found, second, n = candidates.found, expansion.second.rows, 0
    begin(found)
    for r in range(m):
        _, n = accumulate(found, n, distinct[r], 0.0)
    for r in range(m):
        slot = slots[r]
        if slot == ABSENT:
            continue
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(expansion.rows, slots[r + ROWS_AHEAD])
        rank_weight = RANK_WEIGHTS[r]
        for j in range(np.int64(rows[slot].n)):
            score = rank_weight * expansion.rows[slot].first[j]
            candidates.first[r, j], n = accumulate(found, n, rows[slot].neighbour[j], score)
        if r < SECOND_SEEDS:
            for k in range(second[slot].n):
                score = rank_weight * expansion.rows[slot].second[k]
                candidates.second[r, k], n = accumulate(found, n, second[slot].item[k], score)
    return n


@njit_no_refcount()
def _choose(n: int, m: int, n_others: int, candidates: Candidates) -> int:
    """Choose the session's `m` items and the `n_others` others with the highest scores, of `n` found."""
    found, rank, chosen = candidates.found, candidates.rank, candidates.chosen
    for i in range(m):
        chosen[i] = i
    n_chosen = m + largest(found.score[m:n], n_others, chosen[m:])
    for i in range(m, n_chosen):
        chosen[i] += m
    rank[:n] = n_chosen
    for i in range(n_chosen):
        rank[chosen[i]] = i
        candidates.item[i], candidates.score[i] = found.item[chosen[i]], found.score[chosen[i]]
    return n_chosen


@njit_no_refcount()
def choose_candidates(
    session: SessionItems, m: int, items: ItemTable, sessions: int, n_others: int, expansion: ExpansionCache,
    candidates: Candidates,
) -> int:  # fmt: skip
    """Choose the session's own `m` distinct items and the `n_others` others with the highest scores; return how many.

    `sessions`: how many the shop has counted, which says how rare an item is. Ids and scores are in `candidates`; the
    rows are found by `find_rows`, so that work between the two hides the time that memory takes.
    """
    slots = session.slot
    for r in range(m):
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(items.rows, slots[r + ROWS_AHEAD])
        if slots[r] != ABSENT:
            two_steps = r < SECOND_SEEDS
            if two_steps:
                walk_two_steps(items, slots[r], session.item[r], expansion.second, candidates.found)
            expand(items, slots[r], session.item[r], sessions, two_steps, expansion)
    n = _choose(_find(session.item, slots, m, items.rows, expansion, candidates), m, n_others, candidates)
    for i in range(n):  # rows in random order: each is asked for while other things are done
        look_for(items.ids, items.slot_at, candidates.item[i])
    return n


@njit_no_refcount()
def find_rows(n: int, items: ItemTable, candidates: Candidates) -> None:
    """Write the slots of the `n` candidates' rows, and start fetching what is read of each."""
    for i in range(n):
        slot = find(items.ids, items.slot_at, candidates.item[i])
        candidates.slot[i] = slot
        if slot != ABSENT:
            prefetch_head(items.rows, slot)
