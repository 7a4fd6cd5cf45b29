"""The features of a session's candidates, in one layout for serving, fitting, trees and explanations.

Only `write_features` makes them, and only `serving.scoring.mixture.score` turns them into probabilities. What a server
scores and what a night fits are therefore the same numbers, bit for bit (tests/batch/test_one_formula.py).

Two kinds. A *column* holds one number per candidate. A *pair* says how often one candidate went with one item of the
session; few of the possible ones exist, so they are a list, ordered by the session's items.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_row
from schemas.compiled.vector_math import logarithms
from serving.scoring.expansion_cache import ExpansionCache
from serving.scoring.item_features import (
    KAPPA,
    RANK_WEIGHTS,
    ItemTable,
    PopularitySnapshot,
    cosine,
    item_facts,
    popularity_snapshot,
    session_vectors,
    total_cooccurrence,
)
from serving.scoring.neighbours import (
    SECOND_SEEDS,
    Candidates,
    SessionItems,
    choose_candidates,
    find_rows,
    new_candidates,
    new_session_items,
    read_session,
)
from serving.scoring.parameters import ScoreConfig
from serving.scoring.repeat_odds import ln_item_factor, ln_repeat_tables
from serving.scoring.second_order import SecondOrder
from state.rows.item_rows import ADJ, BWD, FAR, MAX_NEIGHBOURS, PAIR_UNIT, ItemRows
from state.rows.lane_rows import N_CURRENT_CELLS, N_EARLIER_CELLS, SESSIONS
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import ABSENT

(
    SECOND_CURRENT,  # Σ over paths of two steps from the current item, of share · share
    SECOND_EARLIER,  # the same from the two items before, each times its rank weight
    POPULARITY_SHORT,  # share of all that is popular now (short half-life)
    POPULARITY_ALL_TIME,  # share of all weight ever counted
    LN_SUPPORT,  # ln of the sessions with the item
    TREND,  # ln of its share at the short over its share at the long half-life
    HITS,  # items of the session that it went with
    SESSION_COSINE,  # of its embedding and the session's
    LAST_COSINE,  # of its embedding and the current item's
    LN_BASE,  # ln of the score it was chosen by
    LN_ITEM_FACTOR,  # ln of how much more often than usual it is repeated; of the session's own items
    LN_REPEAT_CELL,  # ln of the repeat table's probability; of the session's own items
) = range(12)
N_COLUMNS = 12
LN_TOTAL, LN_EVENTS, LN_DISTINCT = range(3)
"""Features that all candidates of a session share: ln(1 + R) of the current item, ln(1 + events), ln(1 + items)."""
BASE_FLOOR = 1e-4
VECTORS_AHEAD = 4
MAX_PAIRS = MAX_DISTINCT * MAX_NEIGHBOURS

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class Features(NamedTuple):
    """Features of the n candidates of one session, of which the first m are the session's own items."""

    column: Floats  # (N_COLUMNS, M), M > n: place n takes the pairs of items that were not chosen
    session: Floats  # (3,): LN_TOTAL, LN_EVENTS, LN_DISTINCT
    pair_end: Int64s  # (MAX_DISTINCT,): where the pairs of the session's item r end; they begin where those of r-1 end
    pair_candidate: Int32s  # (E,): a candidate's place
    adj: Floats  # (E,): share of the session item's pairs in which the candidate came next
    far: Floats  # (E,): in which it came later
    bwd: Floats  # (E,): in which it came before


class ShopTotals(NamedTuple):
    """Totals that all items of a batch share."""

    totals: Int64s  # (lane_rows.SIZE,)
    popularity: PopularitySnapshot
    ln_current: Floats  # (N_CURRENT_CELLS,): ln of the repeat probabilities of the current item
    ln_earlier: Floats  # (N_EARLIER_CELLS,): of earlier items


class FeatureSource(NamedTuple):
    """The rows and tables that features are computed from."""

    items: ItemTable
    shop: ShopTotals
    expansion: ExpansionCache
    n_others: int  # candidates besides the session's own items


class FeatureScratch(NamedTuple):
    """Arrays that `write_features` fills on its way; some of use afterwards."""

    session: SessionItems
    candidates: Candidates
    mean_vector: Floats32  # (d,): direction of the session
    last_vector: Floats32  # (d,): direction of its current item


@njit()
def new_features(width: int) -> Features:
    """Return room for the features of fewer than `width` candidates."""
    return Features(
        np.zeros((N_COLUMNS, width)), np.zeros(3), np.zeros(MAX_DISTINCT, np.int64), np.zeros(MAX_PAIRS, np.int32),
        np.zeros(MAX_PAIRS), np.zeros(MAX_PAIRS), np.zeros(MAX_PAIRS),
    )  # fmt: skip


@njit()
def new_scratch(n_others: int, d: int) -> FeatureScratch:
    """Return scratch for `n_others` candidates besides the session's, and embeddings of `d` numbers."""
    return FeatureScratch(
        new_session_items(), new_candidates(n_others), np.empty(d, np.float32), np.empty(d, np.float32)
    )  # fmt: skip


@njit()
def shop_totals(totals: Int64s, c: ScoreConfig, now_ms: int) -> ShopTotals:
    """Return a shop's totals as of `now_ms`."""
    ln_current, ln_earlier = np.empty(N_CURRENT_CELLS), np.empty(N_EARLIER_CELLS)
    ln_repeat_tables(totals, ln_current, ln_earlier)
    return ShopTotals(totals, popularity_snapshot(totals, c, now_ms), ln_current, ln_earlier)


@njit_no_refcount()
def write_features(
    events: Uint64s, n_events: int, source: FeatureSource, scratch: FeatureScratch, features: Features
) -> tuple[int, int]:
    """Choose a session's candidates and write their features; return (candidates n, the session's own items m).

    `events`: the session's items, oldest first. Afterwards `scratch.session` holds its distinct items and
    `scratch.candidates` the candidates' ids and rows, the session's own items first.
    """
    session, candidates = scratch.session, scratch.candidates
    m = read_session(events, n_events, source.items, session)
    sessions = max(source.shop.totals[SESSIONS], 1)
    n = choose_candidates(session, m, source.items, sessions, source.n_others, source.expansion, candidates)
    _write_pairs(session.slot, m, n, source.items.rows, source.expansion.second, candidates, features)
    find_rows(n, source.items, candidates)
    if source.items.embedding.shape[1] > 0:
        session_vectors(source.items.embedding, session.slot, m, scratch.mean_vector, scratch.last_vector)
    _write_columns(n, source.items, source.shop.popularity, scratch, features)
    _write_session(n_events, m, source.items.rows, source.shop, session, features)
    return n, m


@njit_no_refcount()
def _write_pairs(
    slots: Int64s, m: int, n: int, rows: ItemRows, second: SecondOrder, candidates: Candidates, features: Features
) -> None:
    """Write the pairs, how many each candidate has, and the sums over paths of two steps."""
    rank, column, at = candidates.rank, features.column, 0
    hits, adj, far, bwd = column[HITS], features.adj, features.far, features.bwd
    hits[: n + 1] = 0.0
    column[SECOND_CURRENT, : n + 1] = 0.0
    column[SECOND_EARLIER, : n + 1] = 0.0
    for r in range(m):
        slot = slots[r]
        if slot == ABSENT:
            features.pair_end[r] = at
            continue
        n_pairs: Any = np.int64(rows[slot].n)
        weight = rows[slot].weight
        scale = 1.0 / PAIR_UNIT / (total_cooccurrence(rows, slot) + KAPPA)
        for j in range(n_pairs):  # side by side
            adj[at + j], far[at + j] = weight[ADJ, j] * scale, weight[FAR, j] * scale
            bwd[at + j] = weight[BWD, j] * scale
        for j in range(n_pairs):
            i = rank[candidates.first[r, j]]
            features.pair_candidate[at + j] = i
            hits[i] += 1.0
        at += n_pairs
        features.pair_end[r] = at
        if r < SECOND_SEEDS:
            beyond, which = second.rows[slot], SECOND_CURRENT + min(r, 1)
            for k in range(beyond.n):
                column[which, rank[candidates.second[r, k]]] += RANK_WEIGHTS[r] * beyond.share[k]


@njit_no_refcount(error_model="numpy")
def _write_columns(
    n: int, items: ItemTable, now: PopularitySnapshot, scratch: FeatureScratch, features: Features
) -> None:
    """Write the features from a candidate's own row and embedding."""
    slots, base, column, embedding = scratch.candidates.slot, scratch.candidates.score, features.column, items.embedding
    to_session, to_last = column[SESSION_COSINE], column[LAST_COSINE]
    if embedding.shape[1] > 0:
        for i in range(n):
            if i + VECTORS_AHEAD < n and slots[i + VECTORS_AHEAD] != ABSENT:
                prefetch_row(embedding, slots[i + VECTORS_AHEAD])
            to_session[i], to_last[i] = 0.0, 0.0
            if slots[i] != ABSENT:
                to_session[i], to_last[i] = cosine(embedding, slots[i], scratch.mean_vector, scratch.last_vector)
    else:
        to_session[:n], to_last[:n] = 0.0, 0.0
    ln_support, trend, ln_base = column[LN_SUPPORT], column[TREND], column[LN_BASE]
    for i in range(n):
        support, short, all_time, rise = item_facts(items.rows, slots[i], now)
        column[POPULARITY_SHORT, i], column[POPULARITY_ALL_TIME, i] = short / now.sums[0], all_time / now.sums[2]
        ln_support[i], trend[i], ln_base[i] = support, rise, base[i] + BASE_FLOOR
    for values in (ln_support, trend, ln_base):
        logarithms(values, n)


@njit_no_refcount()
def _write_session(
    n_events: int, m: int, rows: ItemRows, shop: ShopTotals, session: SessionItems, features: Features
) -> None:
    """Write the features that the session gives all candidates, and how often its own items are repeated."""
    slots, column = session.slot, features.column
    total = total_cooccurrence(rows, slots[0]) if m > 0 and slots[0] != ABSENT else 0.0
    features.session[LN_TOTAL] = math.log(total + 1.0)
    features.session[LN_EVENTS], features.session[LN_DISTINCT] = math.log(1.0 + n_events), math.log(1.0 + m)
    for i in range(m):
        factor = ln_item_factor(rows[slots[i]].repeat, shop.totals, i == 0) if slots[i] != ABSENT else 0.0
        column[LN_ITEM_FACTOR, i] = factor
        column[LN_REPEAT_CELL, i] = shop.ln_current[session.cell[0]] if i == 0 else shop.ln_earlier[session.cell[i]]


@njit_no_refcount()
def log_factors(
    features: Features, i: int
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """Return the inputs of `MixtureParams.theta` for candidate i, in its order."""
    column, ln_total = features.column, features.session[LN_TOTAL]
    ln_support, to_session, to_last = column[LN_SUPPORT, i], column[SESSION_COSINE, i], column[LAST_COSINE, i]
    return (
        ln_support, column[TREND, i], column[HITS, i], to_session, to_last, to_session * to_session, to_last * to_last,
        ln_support * ln_total / 10.0, to_session * ln_total / 5.0, column[LN_BASE, i],
    )  # fmt: skip


@njit_no_refcount()
def repeat_inputs(
    features: Features, i: int
) -> tuple[float, float, float, float, float, float, float, float, float, float, float]:
    """Return the inputs of `MixtureParams.repeat` for the session's own item i, in its order."""
    column, session = features.column, features.session
    return (
        1.0, column[LN_ITEM_FACTOR, i], column[LN_REPEAT_CELL, i], column[LN_SUPPORT, i], session[LN_TOTAL],
        column[TREND, i], session[LN_EVENTS], session[LN_DISTINCT], column[SESSION_COSINE, i], column[HITS, i],
        column[LN_BASE, i],
    )  # fmt: skip
