"""Which items could come next: neighbours of the session's items, their neighbours, and the session itself."""

import math
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from serving.forest import N_PAIRS
from serving.mixture import MixtureParams
from state.item_rows import ADJ, BWD, FAR, MAX_NEIGHBOURS, PAIR_UNIT, ItemRows
from state.lane_rows import SESSIONS
from state.prefetch import prefetch_line, prefetch_row
from state.slot_map import ABSENT, find
from state.stack_array import stack_array

KAPPA = 2.0
BWD_MASS = 0.8
SEED_DECAY = 2.5
SECOND_SEEDS = 3
SECOND_SHARE = 0.02
SECOND_BASE = 0.3
MAX_FOUND = 8192
ITEMS_AHEAD, ROWS_AHEAD = 12, 2
"""Rows to ask for ahead of the one in work (`state.prefetch`): of items found, and of those read whole."""
TABLE = 4 * MAX_FOUND
BY_SECOND, BY_POPULARITY, BY_REPEAT = 3, 4, 5
"""Why an item is in the list: ADJ, FAR, BWD from a seed, or one of these."""

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


_middles, _shares = stack_array(np.int64, MAX_NEIGHBOURS), stack_array(np.float64, MAX_NEIGHBOURS)


class Found(NamedTuple):
    """Scratch: candidates of one request. `stamp` marks table entries of the current request."""

    table: npt.NDArray[np.int32]
    stamp: Int64s
    item: Uint64s
    direct: Floats  # Σ weight · component over the pair components
    base: Floats
    second: Floats  # (MAX_FOUND, 2)
    hits: Int64s
    pairs: npt.NDArray[np.float32]  # (MAX_FOUND, N_PAIRS), for trees: shares by seed and kind; 0 between requests
    best: Floats  # largest weighted contribution, and where it came from
    best_seed: Int64s
    best_kind: Int64s
    slot: Int64s  # of its row, ABSENT where there is none


def new_found() -> Found:
    return Found(
        np.zeros(TABLE, np.int32),
        np.zeros(TABLE, np.int64),
        np.zeros(MAX_FOUND, np.uint64),
        np.zeros(MAX_FOUND),
        np.zeros(MAX_FOUND),
        np.zeros((MAX_FOUND, 2)),
        np.zeros(MAX_FOUND, np.int64),
        np.zeros((MAX_FOUND, N_PAIRS), np.float32),
        np.zeros(MAX_FOUND),
        np.zeros(MAX_FOUND, np.int64),
        np.zeros(MAX_FOUND, np.int64),
        np.zeros(MAX_FOUND, np.int64),
    )


@numba.njit(cache=True)
def mass_of(rows: ItemRows, slot: int) -> float:
    """Return R = adj + far + 0.8 · bwd over everything the row ever counted, in pairs."""
    return (rows[slot].total[ADJ] + rows[slot].total[FAR] + BWD_MASS * rows[slot].total[BWD]) / PAIR_UNIT


@numba.njit(cache=True)
def rank_bucket(rank: int) -> int:
    """Return which row of `MixtureParams.pairs` a recency rank uses: 0, 1, 2, 3-4, 5-9, 10+."""
    if rank < 3:
        return rank
    if rank < 5:
        return 3
    return 4 if rank < 10 else 5


@numba.njit(cache=True)
def place(found: Found, n: int, item: np.uint64, request: int) -> tuple[int, int]:
    """Return (index of the candidate, candidates so far); the index is -1 when there is no room."""
    mask = np.uint64(TABLE - 1)
    at = item & mask
    while found.stamp[at] == request:
        if found.item[found.table[at]] == item:
            return np.int64(found.table[at]), n
        at = (at + np.uint64(1)) & mask
    if n == MAX_FOUND:
        return -1, n
    found.stamp[at], found.table[at] = request, n
    found.item[n] = item
    found.direct[n] = found.base[n] = found.best[n] = 0.0
    found.second[n, 0] = found.second[n, 1] = 0.0
    found.hits[n] = found.best_seed[n] = 0
    found.best_kind[n] = BY_POPULARITY
    return n, n + 1


@numba.njit(cache=True)
def _first_order(
    rows: ItemRows, slot: int, rank: int, p: MixtureParams, found: Found, n: int, request: int, for_trees: bool
) -> int:
    scale = 1.0 / PAIR_UNIT / (mass_of(rows, slot) + KAPPA)
    bucket, fade = rank_bucket(rank), math.exp(-rank / SEED_DECAY)
    first = 3 * min(rank, 2)
    for j in range(np.int64(rows[slot].n)):
        at, n = place(found, n, rows[slot].neighbour[j], request)
        if at < 0:
            continue
        found.hits[at] += 1
        for t in range(3):
            share = rows[slot].weight[t, j] * scale
            gain = p.pairs[bucket, t] * share
            found.direct[at] += gain
            found.base[at] += fade * share * (BWD_MASS if t == BWD else 1.0)
            if for_trees:
                found.pairs[at, first + t] += np.float32(share)
            if gain > found.best[at]:
                found.best[at], found.best_seed[at], found.best_kind[at] = gain, rank, t
    return n


@numba.njit(cache=True)
def _second_order(
    rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32], slot: int, item: np.uint64, rank: int,
    found: Found, n: int, request: int,
) -> int:  # fmt: skip
    scale = 1.0 / PAIR_UNIT / (mass_of(rows, slot) + KAPPA)
    fade, which = math.exp(-rank / SEED_DECAY), min(rank, 1)
    middles, shares, m = _middles(), _shares(), 0
    for k in range(np.int64(rows[slot].n)):
        through = (rows[slot].weight[ADJ, k] + rows[slot].weight[FAR, k] + BWD_MASS * rows[slot].weight[BWD, k]) * scale
        if through < SECOND_SHARE:
            continue
        middle = find(table, slot_at, rows[slot].neighbour[k])
        if middle != ABSENT:
            middles[m], shares[m] = middle, through
            m += 1
    for k in range(m):
        if k + ROWS_AHEAD < m:
            prefetch_row(rows, middles[k + ROWS_AHEAD])
        middle = middles[k]
        step = fade * shares[k] / PAIR_UNIT / (mass_of(rows, middle) + KAPPA)
        for j in range(np.int64(rows[middle].n)):
            if rows[middle].neighbour[j] == item:
                continue
            at, n = place(found, n, rows[middle].neighbour[j], request)
            if at >= 0:
                found.second[at, which] += step * (
                    rows[middle].weight[ADJ, j] + rows[middle].weight[FAR, j] + BWD_MASS * rows[middle].weight[BWD, j]
                )
    return n


@numba.njit(cache=True)
def find_candidates(
    rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32], distinct: Uint64s, slots: Int64s, m: int,
    totals: Int64s, p: MixtureParams, n_candidates: int, found: Found, request: int, chosen: Int64s, for_trees: bool,
) -> tuple[int, int]:  # fmt: skip
    """Fill `found`; write the indexes of the chosen candidates into `chosen`; return (how many, items found).

    Chosen are the session's own `m` distinct items (`slots`: of their rows), which stand first in `found`, and
    the `n_candidates` others with the largest base score. With `for_trees` the caller
    sets `found.pairs` of the items found back to 0.
    """
    n = 0
    for r in range(m):
        _, n = place(found, n, distinct[r], request)
    for r in range(m):
        if r + ROWS_AHEAD < m and slots[r + ROWS_AHEAD] != ABSENT:
            prefetch_row(rows, slots[r + ROWS_AHEAD])
        slot = slots[r]
        if slot != ABSENT:
            n = _first_order(rows, slot, r, p, found, n, request, for_trees)
    for r in range(min(m, SECOND_SEEDS)):
        slot = slots[r]
        if slot != ABSENT:
            n = _second_order(rows, table, slot_at, slot, distinct[r], r, found, n, request)
    sessions = max(totals[SESSIONS], 1)
    mask = np.uint64(len(table) - 1)
    for i in range(n):  # thousands of rows in random order: each is asked for while those before are looked up
        if i + ITEMS_AHEAD < n:
            at = np.int64(found.item[i + ITEMS_AHEAD] & mask)
            prefetch_line(table, at)
            prefetch_line(slot_at, at)
        slot = find(table, slot_at, found.item[i])
        found.slot[i] = slot
        if slot != ABSENT:
            prefetch_line(rows, slot)
    for i in range(n):
        slot = found.slot[i]
        support = max(rows[slot].support, 1) if slot != ABSENT else 1
        found.base[i] += SECOND_BASE * (found.second[i, 0] + found.second[i, 1])
        found.base[i] *= 1.0 + 0.5 * math.log(max(sessions / support, 1.0))
    for i in range(m):
        chosen[i] = i
    if n - m <= n_candidates:
        for i in range(m, n):
            chosen[i] = i
        return n, n
    least = np.partition(found.base[m:n], n - m - n_candidates)[n - m - n_candidates]
    at = m
    for i in range(m, n):
        if found.base[i] > least:
            chosen[at] = i
            at += 1
    for i in range(m, n):  # of those that are equal, the first ones found
        if at < m + n_candidates and found.base[i] == least:
            chosen[at] = i
            at += 1
    return at, n
