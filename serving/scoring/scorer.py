"""The calibrated mixture: the probability that each candidate comes next (docs/model.md)."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_row
from schemas.compiled.stack_array import stack_array
from schemas.compiled.vector_math import exponentials, logarithms
from serving.scoring.candidate_table import MAX_CANDIDATES
from serving.scoring.expansion_cache import ExpansionCache, new_leads
from serving.scoring.item_features import (
    PopularitySnapshot,
    cosine,
    item_facts,
    moment_of,
    session_direction,
    total_cooccurrence,
)
from serving.scoring.neighbours import (
    BY_POPULARITY,
    BY_REPEAT,
    BY_SECOND,
    Candidates,
    best_of,
    find_candidates,
    new_candidates,
)
from serving.scoring.parameters import DEFAULT, DEFAULT_CONFIG, MixtureParams, ScoreConfig
from serving.scoring.repeat_odds import ln_item_factor, ln_repeat_tables
from serving.scoring.sessions import Sessions, padded_sessions
from serving.scoring.tree_ensemble import FIRST_REPEAT, N_PAIRS, N_PARTS, NO_FOREST, Forest, put_in_order
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import N_CURRENT_CELLS, N_EARLIER_CELLS, SIZE
from state.rows.session import MAX_DISTINCT, SESSION_EVENTS, distinct_latest_first, repeat_cells
from state.rows.slot_map import ABSENT, SlotMap, find

ALLOW, DEMOTE, EXCLUDE = 0, 1, 2
REPEAT_MODES = {"allow": ALLOW, "demote": DEMOTE, "exclude": EXCLUDE}
FLOOR = 1e-5
VECTORS_AHEAD = 4
PLACE_BITS = MAX_CANDIDATES - 1
NO_EMBEDDING = np.zeros((0, 0), np.float32)

_distinct, _places = stack_array(np.uint64, SESSION_EVENTS), stack_array(np.int8, SESSION_EVENTS)
_slots, _cells = stack_array(np.int64, MAX_DISTINCT), stack_array(np.int64, MAX_DISTINCT)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class Scored(NamedTuple):
    """Per request, best first: ids, probabilities, and why (the seed's id or 0, the kind of its share)."""

    n: Int64s  # (B,)
    item: Uint64s  # (B, M)
    probability: Floats  # (B, M)
    seed: Uint64s  # (B, M)
    why: Int64s  # (B, M)
    tied: npt.NDArray[np.bool_]  # (B,) whether some are equally likely
    unread: npt.NDArray[np.bool_]  # (B,) whether some have no row in the table; those of the others are kept


class _Room(NamedTuple):
    """What is found out about the candidates of one session, in the order they were chosen."""

    probability: Floats
    odds: Floats  # of a repeat
    items: Uint64s
    seeds: Uint64s
    why: Int64s
    parts: Floats32  # (n, N_PARTS), for trees
    short: Floats  # shares of all that is popular now, and of all there ever was
    ever: Floats
    ln_support: Floats
    trend: Floats
    ln_base: Floats
    near_all: Floats  # nearness to the session and to its last item
    near_last: Floats
    towards: Floats32  # (d,): the direction of the session
    last: Floats32  # and of its last item


@njit_no_refcount(error_model="numpy")
def _look_up_facts(
    n: int,
    rows: ItemRows,
    embedding: Floats32,
    now: PopularitySnapshot,
    p: MixtureParams,
    of: npt.NDArray[np.void],
    room: _Room,
) -> None:
    """Write what the formula takes of each candidate; `room.probability` is the logarithm of the sum of its shares."""
    if embedding.shape[1] > 0:
        for i in range(n):
            if i + VECTORS_AHEAD < n and of[i + VECTORS_AHEAD].slot != ABSENT:
                prefetch_row(embedding, of[i + VECTORS_AHEAD].slot)
            near_all, near_last = 0.0, 0.0
            if of[i].slot != ABSENT:
                near_all, near_last = cosine(embedding, of[i].slot, room.towards, room.last)
            room.near_all[i], room.near_last[i] = near_all, near_last
    else:
        room.near_all[:n], room.near_last[:n] = 0.0, 0.0
    for i in range(n):
        support, short, ever, trend = item_facts(rows, of[i].slot, now)
        room.short[i], room.ever[i] = short / now.sums[0], ever / now.sums[2]
        room.ln_support[i], room.trend[i], room.ln_base[i] = support, trend, of[i].base + 1e-4
        room.probability[i] = (
            FLOOR + of[i].direct + p.second[0] * of[i].second[0] + p.second[1] * of[i].second[1]
            + p.popularity[0] * room.short[i] + p.popularity[1] * room.ever[i]
        )  # fmt: skip
    for values in (room.ln_support, room.trend, room.ln_base, room.probability):
        logarithms(values, n)


@njit_no_refcount(error_model="numpy")
def _score_one(
    session: Uint64s, n_session: int, rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32],
    embedding: Floats32, totals: Int64s, now: PopularitySnapshot, ln_current: Floats, ln_earlier: Floats,
    p: MixtureParams, c: ScoreConfig, repeat_mode: int, leads: ExpansionCache, candidates: Candidates, for_trees: bool,
    room: _Room,
) -> tuple[int, int]:  # fmt: skip
    """Return (candidates, how many of them, the first ones, are the session's); `room` says the rest."""
    distinct, place_of_event, slots, cells = _distinct(), _places(), _slots(), _cells()
    n_distinct = distinct_latest_first(session, n_session, distinct, place_of_event)
    m = min(n_distinct, MAX_DISTINCT)
    if m > 0:
        repeat_cells(place_of_event, n_session, n_distinct, cells)
    for r in range(m):
        slots[r] = find(table, slot_at, distinct[r])
    n = find_candidates(
        rows, table, slot_at, distinct, slots, m, totals, p, c.n_candidates, for_trees, leads, candidates
    )  # fmt: skip
    if embedding.shape[1] > 0:
        session_direction(embedding, slots, m, room.towards, room.last)
    of = candidates.of
    _look_up_facts(n, rows, embedding, now, p, of, room)
    ln_mass = math.log(total_cooccurrence(rows, slots[0]) + 1.0) if m > 0 and slots[0] != ABSENT else 0.0
    probability, odds, t = room.probability, room.odds, p.theta
    for i in range(n):
        es, el, ln_support, ln_base = room.near_all[i], room.near_last[i], room.ln_support[i], room.ln_base[i]
        probability[i] = p.power * probability[i] + (
            t[0] * ln_support + t[1] * room.trend[i] + t[2] * of[i].hits + t[3] * es + t[4] * el + t[5] * es * es
            + t[6] * el * el + t[7] * ln_support * ln_mass / 10.0 + t[8] * es * ln_mass / 5.0 + t[9] * ln_base
        )  # fmt: skip
        if i < m:
            probability[i] += p.session_bias[min(i, 1)]
    exponentials(probability, n)
    if repeat_mode == EXCLUDE:
        probability[:m] = 0.0
    total_novel = total_odds = 0.0
    for i in range(n):
        one = of[i]
        second = p.second[0] * one.second[0] + p.second[1] * one.second[1]
        popularity = p.popularity[0] * room.short[i] + p.popularity[1] * room.ever[i]
        total_novel += probability[i]
        best, best_seed, best_kind = best_of(one.best)
        room.items[i], room.why[i] = one.item, best_kind
        if second > best and second > popularity:
            room.why[i] = BY_SECOND
        elif popularity > best:
            room.why[i] = BY_POPULARITY
        room.seeds[i] = distinct[best_seed] if m > 0 else np.uint64(0)
        odds[i] = 0.0
        if for_trees:
            _write_parts(i, of, ln_mass, room)
    if repeat_mode == ALLOW:
        ln_events, ln_distinct = math.log(1.0 + n_session), math.log(1.0 + m)
        for i in range(m):
            ln_item = ln_item_factor(rows[of[i].slot].repeat, totals, i == 0) if of[i].slot != ABSENT else 0.0
            inputs = (
                1.0, ln_item, ln_current[cells[0]] if i == 0 else ln_earlier[cells[i]], room.ln_support[i], ln_mass,
                room.trend[i], ln_events, ln_distinct, room.near_all[i], np.float64(of[i].hits),
                room.ln_base[i],
            )  # fmt: skip
            ln_odds = 0.0
            for k in range(len(inputs)):
                ln_odds += p.repeat[min(i, 1), k] * inputs[k]
                if for_trees:
                    room.parts[i, FIRST_REPEAT + k] = inputs[k]
            odds[i] = math.exp(ln_odds)
            total_odds += odds[i]
    for i in range(n):
        share = probability[i] / total_novel if total_novel > 0.0 else 0.0
        if odds[i] > share:
            room.why[i] = BY_REPEAT
            room.seeds[i] = distinct[i]
        probability[i] = (share + odds[i]) / (1.0 + total_odds)
    return n, m


@njit_no_refcount()
def _write_parts(i: int, of: npt.NDArray[np.void], ln_mass: float, room: _Room) -> None:
    """Write what trees look at of a candidate, but for the inputs of the repeat odds: zeros."""
    parts, es, el, ln_support = room.parts, room.near_all[i], room.near_last[i], room.ln_support[i]
    for k in range(N_PAIRS):
        parts[i, k] = of[i].pairs[k]
    values = (
        of[i].second[0], of[i].second[1], room.short[i], room.ever[i], ln_support, room.trend[i],
        np.float64(of[i].hits), es, el, es * es, el * el, ln_support * ln_mass / 10.0, es * ln_mass / 5.0,
        room.ln_base[i],
    )  # fmt: skip
    for k in range(len(values)):
        parts[i, N_PAIRS + k] = values[k]
    parts[i, FIRST_REPEAT:] = np.float32(0.0)


@njit_no_refcount()
def likeliest_first(probability: Floats, items: Uint64s, keys: Int64s, order: Int64s) -> None:
    """Write the order of falling probability, equal ones by id hash; `keys` is room for as many."""
    # Numbers of 64 bits compare faster than places do: those of doubles >= 0 rise with them, and the lowest bits of
    # each give way to its place. For each it is counted how many are smaller, four at a time.
    bits, n = probability.view(np.int64), len(probability)
    for i in range(n):
        keys[i] = ~(bits[i] | PLACE_BITS) | i
    for i in range(n):
        smaller = 0
        for k in range(n):
            smaller += keys[k] < keys[i]
        order[smaller] = i
    for k in range(n):  # few are out of place: those equal to another, or all but equal
        i, at = order[k], k
        while at > 0:
            before = order[at - 1]
            if probability[before] > probability[i] or (
                probability[before] == probability[i] and items[before] < items[i]
            ):
                break
            order[at] = before
            at -= 1
        order[at] = i


@njit(nogil=True)
def _score(
    sessions: Uint64s, lengths: Int64s, modes: Int64s, rows: ItemRows, table: Uint64s,
    slot_at: npt.NDArray[np.int32], embedding: Floats32, totals: Int64s, p: MixtureParams,
    c: ScoreConfig, forest: Forest, now_ms: int, leads: ExpansionCache, used_in: Int64s, round_no: int, out: Scored,
) -> None:  # fmt: skip
    ln_current, ln_earlier = np.empty(N_CURRENT_CELLS), np.empty(N_EARLIER_CELLS)
    ln_repeat_tables(totals, ln_current, ln_earlier)
    now, candidates = moment_of(totals, c, now_ms), new_candidates(c.n_candidates)
    width = out.item.shape[1]
    room = _Room(
        np.empty(width), np.empty(width), np.empty(width, np.uint64), np.empty(width, np.uint64),
        np.empty(width, np.int64), np.empty((width, N_PARTS), np.float32), np.empty(width), np.empty(width),
        np.empty(width), np.empty(width), np.empty(width), np.empty(width), np.empty(width),
        np.empty(embedding.shape[1], np.float32), np.empty(embedding.shape[1], np.float32),
    )  # fmt: skip
    probability, items, seeds, why, parts = room.probability, room.items, room.seeds, room.why, room.parts
    keys, likeliest, trees_order = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.int64)
    for b in range(len(lengths)):
        # Trees know the session's items as candidates: where they are not to be shown they are left out at the end.
        by_trees = len(forest.value) > 0 and modes[b] != DEMOTE
        n, m = _score_one(
            sessions[b], lengths[b], rows, table, slot_at, embedding, totals, now, ln_current, ln_earlier, p, c,
            ALLOW if by_trees else modes[b], leads, candidates, by_trees, room,
        )  # fmt: skip
        likeliest_first(probability[:n], items, keys, likeliest)
        order, n_ordered = likeliest, 0
        if by_trees:
            order = trees_order
            order[:n] = likeliest[:n]
            n_ordered = put_in_order(order[:n], probability, m, parts, forest)
        left_out = m if by_trees and modes[b] == EXCLUDE else 0
        scale = 1.0 / np.sum(probability[left_out:n]) if left_out > 0 and left_out < n else 1.0
        k = q = 0
        for i in order[:n]:
            if i < left_out:
                continue
            while likeliest[q] < left_out:
                q += 1
            share = probability[likeliest[q]] * scale  # trees say who comes first, the mixture how likely a place is
            if k == width or share <= 0.0:
                break
            out.item[b, k], out.probability[b, k] = items[i], share
            out.seed[b, k], out.why[b, k] = seeds[i], why[i]
            slot = candidates.of[i].slot
            if slot == ABSENT:
                out.unread[b] = True
            else:
                used_in[slot] = round_no
            out.tied[b] |= k > n_ordered and out.probability[b, k - 1] == share
            k, q = k + 1, q + 1
        out.n[b] = k


class Scorer:
    """Scores batches of sessions against a table of item rows. Not for several threads at once."""

    def __init__(
        self,
        params: MixtureParams = DEFAULT,
        config: ScoreConfig = DEFAULT_CONFIG,
        forest: Forest = NO_FOREST,
        leads_age_ms: int = 0,
    ) -> None:
        """`leads_age_ms`: how long what follows from the rows of an item's neighbours is good for; 0: for one call."""
        self.params, self.config, self.forest = params, config, forest
        self._leads_age_ms = leads_age_ms
        self._leads, self._n_calls = new_leads(0), 0

    def score(
        self,
        sessions: Sessions,
        rows: ItemRows,
        slots: SlotMap,
        totals: Int64s,
        now_ms: int,
        modes: Int64s | int = ALLOW,
        embedding: Floats32 = NO_EMBEDDING,
        by_trees: bool = True,
        read_in: Int64s | None = None,
    ) -> Scored:
        """Return the candidates of each session, likeliest first; equal ones by id hash.

        Every item of a session should have its row in the table; one without counts as unseen. `modes`: of
        REPEAT_MODES, one for each session or one for all. Where there are trees, and `by_trees`, the likeliest are in
        their order. `read_in`: a number for each row, another one whenever the row changes; without it they change
        with `now_ms` at most. In `slots` the rows of what is returned are marked as used in this round.
        """
        b, width = len(sessions.n), self.config.n_candidates + MAX_DISTINCT
        out = Scored(
            np.zeros(b, np.int64),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width)),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width), np.int64),
            np.zeros(b, np.bool_),
            np.zeros(b, np.bool_),
        )
        if len(self._leads.rows) != len(rows):
            self._leads = new_leads(len(rows))
        self._n_calls += 1
        now, oldest = (now_ms, now_ms - self._leads_age_ms) if self._leads_age_ms else (self._n_calls, self._n_calls)
        second = self._leads.second._replace(now=now, oldest=oldest)
        leads = ExpansionCache(self._leads.rows, second, self._leads.read_in if read_in is None else read_in)
        mode_of = np.full(b, modes, np.int64)  # one for all, or one for each
        _score(
            sessions.item, sessions.n, mode_of, rows, slots.table, slots.slot_at, embedding, totals, self.params,
            self.config, self.forest if by_trees else NO_FOREST, now_ms, leads, slots.used_in, slots.round_no, out,
        )  # fmt: skip
        return out

    def warm_up(self) -> None:
        """Compile the kernels, so that the first request does not wait for it."""
        from state.rows.item_rows import empty_items

        slots = SlotMap(16)
        slots.assign(np.array([1, 2], np.uint64))
        self.score(padded_sessions([np.array([1, 2], np.uint64)]), empty_items(16), slots, np.zeros(SIZE, np.int64), 1)
