"""The parts of the mixture, candidate by candidate: what its numbers are fitted to (docs/model.md)."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batch.training.simulated_shop import Pairs, View
from schemas.compiled.njit import njit
from serving.scoring.expansion_cache import ExpansionCache, new_leads
from serving.scoring.item_features import (
    KAPPA,
    PopularitySnapshot,
    cosine,
    item_facts,
    moment_of,
    session_direction,
    total_cooccurrence,
)
from serving.scoring.neighbours import Candidates, find_candidates, new_candidates, rank_bucket
from serving.scoring.parameters import DEFAULT, DEFAULT_CONFIG, MixtureParams, ScoreConfig
from serving.scoring.repeat_odds import ln_item_factor, ln_repeat_tables
from serving.scoring.sessions import padded_sessions
from state.rows.item_rows import PAIR_UNIT, ItemRows
from state.rows.lane_rows import N_CURRENT_CELLS, N_EARLIER_CELLS
from state.rows.session import MAX_DISTINCT, SESSION_EVENTS, distinct_latest_first, repeat_cells
from state.rows.slot_map import ABSENT, find

N_SHARES, N_FACTORS, N_REPEAT = 22, 10, 11
"""Components with a weight of their own, log factors, and inputs of the repeat odds (the first is 1)."""
NOVEL, CURRENT, EARLIER = 0, 1, 2

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class MixtureTable(NamedTuple):
    """Candidates of P predictions, padded to width M."""

    n: Int64s  # (P,)
    item: Uint64s  # (P, M)
    shares: Floats32  # (P, M, 22): 6 rank buckets x (adj, far, bwd), second order 2, popularity 2
    factors: Floats32  # (P, M, 10)
    repeat: Floats32  # (P, M, 11), of the session's own items
    place: npt.NDArray[np.int8]  # (P, M): NOVEL, CURRENT or EARLIER
    target: Int64s  # (P,): where the target stands, -1 when it is no candidate


@njit()
def _fill_one(
    session: Uint64s, n_session: int, rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32],
    embedding: Floats32, totals: Int64s, now: PopularitySnapshot, ln_current: Floats, ln_earlier: Floats,
    p: MixtureParams, c: ScoreConfig, leads: ExpansionCache, candidates: Candidates,
    item: Uint64s, shares: Floats32, factors: Floats32, repeat: Floats32, places: npt.NDArray[np.int8],
) -> int:  # fmt: skip
    distinct, place_of_event = np.empty(SESSION_EVENTS, np.uint64), np.empty(SESSION_EVENTS, np.int8)
    slots, cells = np.empty(MAX_DISTINCT, np.int64), np.empty(MAX_DISTINCT, np.int64)
    n_distinct = distinct_latest_first(session, n_session, distinct, place_of_event)
    m = min(n_distinct, MAX_DISTINCT)
    repeat_cells(place_of_event, n_session, n_distinct, cells)
    for r in range(m):
        slots[r] = find(table, slot_at, distinct[r])
    n = find_candidates(
        rows, table, slot_at, distinct, slots, m, totals, p, c.n_candidates, False, leads, candidates
    )  # fmt: skip
    for r in range(m):
        slot = slots[r]
        if slot == ABSENT:
            continue
        scale, bucket = 1.0 / PAIR_UNIT / (total_cooccurrence(rows, slot) + KAPPA), rank_bucket(r)
        for j in range(np.int64(rows[slot].n)):
            i = candidates.first[r, j]
            if i < n:
                for t in range(3):
                    shares[i, 3 * bucket + t] += rows[slot].weight[t, j] * scale
    d = embedding.shape[1]
    towards, last = np.zeros(d, np.float32), np.zeros(d, np.float32)
    if d > 0:
        session_direction(embedding, slots, m, towards, last)
    ln_mass = math.log(total_cooccurrence(rows, slots[0]) + 1.0) if slots[0] != ABSENT else 0.0
    for i in range(n):
        one = candidates.of[i]
        slot = one.slot
        support, p1, count, rise = item_facts(rows, slot, now)
        es = el = 0.0
        if slot != ABSENT and d > 0:
            es, el = cosine(embedding, slot, towards, last)
        shares[i, 18], shares[i, 19] = one.second[0], one.second[1]
        shares[i, 20], shares[i, 21] = p1 / now.sums[0], count / now.sums[2]
        ln_support, ln_base, trend = math.log(support), math.log(one.base + 1e-4), math.log(rise)
        hits = one.hits
        values = (
            ln_support, trend, np.float64(hits), es, el, es * es, el * el, ln_support * ln_mass / 10.0,
            es * ln_mass / 5.0, ln_base,
        )  # fmt: skip
        for k in range(N_FACTORS):
            factors[i, k] = values[k]
        item[i] = one.item
        places[i] = NOVEL
        if i < m:
            places[i] = CURRENT if i == 0 else EARLIER
            ln_item = ln_item_factor(rows[slot].repeat, totals, i == 0) if slot != ABSENT else 0.0
            inputs = (
                1.0, ln_item, ln_current[cells[0]] if i == 0 else ln_earlier[cells[i]], ln_support, ln_mass, trend,
                math.log(1.0 + n_session), math.log(1.0 + m), es, np.float64(hits), ln_base,
            )  # fmt: skip
            for k in range(N_REPEAT):
                repeat[i, k] = inputs[k]
    return n


@njit()
def _fill(
    sessions: Uint64s, lengths: Int64s, rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32],
    embedding: Floats32, totals: Int64s, p: MixtureParams, c: ScoreConfig, now_ms: int, leads: ExpansionCache,
    out: MixtureTable,
) -> None:  # fmt: skip
    ln_current, ln_earlier = np.empty(N_CURRENT_CELLS), np.empty(N_EARLIER_CELLS)
    ln_repeat_tables(totals, ln_current, ln_earlier)
    now, candidates = moment_of(totals, c, now_ms), new_candidates(c.n_candidates)
    for b in range(len(lengths)):
        out.n[b] = _fill_one(
            sessions[b], lengths[b], rows, table, slot_at, embedding, totals, now, ln_current, ln_earlier, p, c,
            leads, candidates, out.item[b], out.shares[b], out.factors[b], out.repeat[b], out.place[b],
        )  # fmt: skip


def mixture_table(view: View, embedding: Floats32, pairs: Pairs, config: ScoreConfig = DEFAULT_CONFIG) -> MixtureTable:
    """Return the parts of every candidate of every prediction, from the rows as they are."""
    b, width = len(pairs.target), config.n_candidates + MAX_DISTINCT
    sessions, lengths = padded_sessions(pairs.history)
    out = MixtureTable(
        np.zeros(b, np.int64), np.zeros((b, width), np.uint64), np.zeros((b, width, N_SHARES), np.float32),
        np.zeros((b, width, N_FACTORS), np.float32), np.zeros((b, width, N_REPEAT), np.float32),
        np.zeros((b, width), np.int8), np.full(b, -1, np.int64),
    )  # fmt: skip
    _fill(
        sessions, lengths, view.rows, view.slots.table, view.slots.slot_at, embedding, view.totals, DEFAULT, config,
        view.now_ms, new_leads(len(view.rows)), out,
    )  # fmt: skip
    hit = out.item == pairs.target[:, None]
    out.target[:] = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
    return out
