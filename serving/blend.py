"""The calibrated mixture: the probability that each candidate comes next (docs/model.md)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from schemas.uncounted import uncounted
from serving.candidates import find_candidates
from serving.forest import FIRST_REPEAT, N_PAIRS, N_PARTS, NO_FOREST, Forest, put_in_order
from serving.found import BY_POPULARITY, BY_REPEAT, BY_SECOND, MAX_FOUND, Found, new_found
from serving.item_facts import Moment, item_facts, mass_of, moment_of, nearness, session_direction
from serving.mixture import DEFAULT, DEFAULT_CONFIG, MixtureParams, ScoreConfig
from serving.repeat_odds import ln_item_factor, ln_repeat_tables
from serving.second_order import SecondOrder, second_order
from state.item_rows import ItemRows
from state.lane_rows import N_CURRENT_CELLS, N_EARLIER_CELLS, SIZE
from state.prefetch import prefetch_row
from state.session import MAX_DISTINCT, SESSION_EVENTS, distinct_latest_first, repeat_cells
from state.slot_map import ABSENT, SlotMap, find
from state.stack_array import stack_array

ALLOW, DEMOTE, EXCLUDE = 0, 1, 2
REPEAT_MODES = {"allow": ALLOW, "demote": DEMOTE, "exclude": EXCLUDE}
FLOOR = 1e-5
VECTORS_AHEAD = 4
PLACE_BITS = MAX_FOUND - 1
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


class _Room(NamedTuple):
    """What is found out about the candidates of one session, in the order they were chosen."""

    chosen: Int64s  # their indexes in `found`
    probability: Floats
    odds: Floats  # of a repeat
    items: Uint64s
    seeds: Uint64s
    why: Int64s
    parts: Floats32  # (n, N_PARTS), for trees
    towards: Floats32  # (d,): the direction of the session
    last: Floats32  # and of its last item


@uncounted()
def _score_one(
    session: Uint64s, n_session: int, rows: ItemRows, table: Uint64s, slot_at: npt.NDArray[np.int32],
    embedding: Floats32, totals: Int64s, now: Moment, ln_current: Floats, ln_earlier: Floats,
    p: MixtureParams, c: ScoreConfig, repeat_mode: int, found: Found, two_steps: SecondOrder, for_trees: bool,
    room: _Room,
) -> tuple[int, int]:  # fmt: skip
    """Return (candidates, how many of them, the first ones, are the session's); `room` says the rest."""
    chosen, probability, odds, items, seeds, why, parts, towards, last = room
    distinct, place_of_event, slots, cells = _distinct(), _places(), _slots(), _cells()
    n_distinct = distinct_latest_first(session, n_session, distinct, place_of_event)
    m = min(n_distinct, MAX_DISTINCT)
    if m > 0:
        repeat_cells(place_of_event, n_session, n_distinct, cells)
    for r in range(m):
        slots[r] = find(table, slot_at, distinct[r])
    n, _ = find_candidates(
        rows, table, slot_at, distinct, slots, m, totals, p, c.n_candidates, found, chosen, for_trees,
        two_steps,
    )  # fmt: skip
    d = embedding.shape[1]
    if d > 0:
        session_direction(embedding, slots, m, towards, last)
    ln_mass = math.log(mass_of(rows, slots[0]) + 1.0) if m > 0 and slots[0] != ABSENT else 0.0
    odds[:n] = 0.0
    total_novel = total_odds = 0.0
    for i in range(n):
        if d > 0 and i + VECTORS_AHEAD < n and found.of[chosen[i + VECTORS_AHEAD]].slot != ABSENT:
            prefetch_row(embedding, found.of[chosen[i + VECTORS_AHEAD]].slot)
        at = chosen[i]
        in_session = at < m
        one = found.of[at]
        slot = one.slot
        support, p1, count, trend = item_facts(rows, slot, now)
        es = el = 0.0
        if slot != ABSENT and d > 0:
            es, el = nearness(embedding, slot, towards, last)
        popularity = p.popularity[0] * p1 / now.sums[0] + p.popularity[1] * count / now.sums[2]
        second = p.second[0] * one.second[0] + p.second[1] * one.second[1]
        ln_support, ln_base = math.log(support), math.log(one.base + 1e-4)
        hits = one.hits
        t = p.theta
        factor = (
            t[0] * ln_support + t[1] * trend + t[2] * hits + t[3] * es + t[4] * el + t[5] * es * es + t[6] * el * el
            + t[7] * ln_support * ln_mass / 10.0 + t[8] * es * ln_mass / 5.0 + t[9] * ln_base
        )  # fmt: skip
        if in_session:
            factor += p.session_bias[0 if at == 0 else 1]
        weight = math.exp(p.power * math.log(FLOOR + one.direct + second + popularity) + factor)
        if in_session and repeat_mode == EXCLUDE:
            weight = 0.0
        if for_trees:
            for k in range(N_PAIRS):
                parts[i, k] = one.pairs[k]
            values = (
                one.second[0], one.second[1], p1 / now.sums[0], count / now.sums[2], ln_support, trend,
                np.float64(hits), es, el, es * es, el * el, ln_support * ln_mass / 10.0, es * ln_mass / 5.0, ln_base,
            )  # fmt: skip
            for k in range(len(values)):
                parts[i, N_PAIRS + k] = values[k]
            parts[i, FIRST_REPEAT:] = np.float32(0.0)
        probability[i] = weight
        total_novel += weight
        why[i] = one.best_kind
        if second > one.best and second > popularity:
            why[i] = BY_SECOND
        elif popularity > one.best:
            why[i] = BY_POPULARITY
        seeds[i] = distinct[one.best_seed] if one.best_seed < m else np.uint64(0)
        items[i] = one.item
        if in_session and repeat_mode == ALLOW:
            z = 0 if at == 0 else 1
            a = p.repeat[z]
            ln_item = ln_item_factor(rows[slot].repeat, totals, at == 0) if slot != ABSENT else 0.0
            ln_table = ln_current[cells[0]] if at == 0 else ln_earlier[cells[at]]
            ln_events, ln_distinct = math.log(1.0 + n_session), math.log(1.0 + m)
            odds[i] = math.exp(
                a[0] + a[1] * ln_item + a[2] * ln_table + a[3] * ln_support + a[4] * ln_mass + a[5] * trend
                + a[6] * ln_events + a[7] * ln_distinct + a[8] * es + a[9] * hits + a[10] * ln_base
            )  # fmt: skip
            total_odds += odds[i]
            if for_trees:
                inputs = (
                    1.0, ln_item, ln_table, ln_support, ln_mass, trend, ln_events, ln_distinct, es, np.float64(hits),
                    ln_base,
                )  # fmt: skip
                for k in range(len(inputs)):
                    parts[i, FIRST_REPEAT + k] = inputs[k]
    for i in range(n):
        share = probability[i] / total_novel if total_novel > 0.0 else 0.0
        if odds[i] > share:
            why[i] = BY_REPEAT
            seeds[i] = distinct[chosen[i]]
        probability[i] = (share + odds[i]) / (1.0 + total_odds)
    return n, m


@uncounted()
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


@numba.njit(cache=True, nogil=True)
def _score(
    sessions: Uint64s, lengths: Int64s, modes: Int64s, rows: ItemRows, table: Uint64s,
    slot_at: npt.NDArray[np.int32], embedding: Floats32, totals: Int64s, p: MixtureParams,
    c: ScoreConfig, forest: Forest, now_ms: int, found: Found, out: Scored, two_steps: SecondOrder,
) -> None:  # fmt: skip
    ln_current, ln_earlier = np.empty(N_CURRENT_CELLS), np.empty(N_EARLIER_CELLS)
    ln_repeat_tables(totals, ln_current, ln_earlier)
    now = moment_of(totals, c, now_ms)
    width = out.item.shape[1]
    room = _Room(
        np.empty(width, np.int64), np.empty(width), np.empty(width), np.empty(width, np.uint64),
        np.empty(width, np.uint64), np.empty(width, np.int64), np.empty((width, N_PARTS), np.float32),
        np.empty(embedding.shape[1], np.float32), np.empty(embedding.shape[1], np.float32),
    )  # fmt: skip
    _, probability, _, items, seeds, why, parts, _, _ = room
    keys, likeliest, trees_order = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.int64)
    for b in range(len(lengths)):
        # Trees know the session's items as candidates: where they are not to be shown they are left out at the end.
        by_trees = len(forest.value) > 0 and modes[b] != DEMOTE
        n, m = _score_one(
            sessions[b], lengths[b], rows, table, slot_at, embedding, totals, now, ln_current, ln_earlier, p, c,
            ALLOW if by_trees else modes[b], found, two_steps, by_trees, room,
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
        second_age_ms: int = 0,
    ) -> None:
        """`second_age_ms`: how long the neighbours of a seed's neighbours are good for; 0: for one call."""
        self.params, self.config, self.forest = params, config, forest
        self._second_age_ms = second_age_ms
        self._second = second_order(0)
        self._found = new_found()

    def score(
        self,
        sessions: Sequence[Uint64s],
        rows: ItemRows,
        slots: SlotMap,
        totals: Int64s,
        now_ms: int,
        modes: Sequence[int] | None = None,
        embedding: Floats32 = NO_EMBEDDING,
        by_trees: bool = True,
    ) -> Scored:
        """Return the candidates of each session, likeliest first; equal ones by id hash.

        `sessions`: item hashes, oldest first; the last SESSION_EVENTS count. Every item
        should have its row in the table; one without counts as unseen. Where there are
        trees, and `by_trees`, the likeliest are in their order.
        """
        b, width = len(sessions), self.config.n_candidates + MAX_DISTINCT
        padded, lengths = np.zeros((b, SESSION_EVENTS), np.uint64), np.zeros(b, np.int64)
        for i, session in enumerate(sessions):
            recent = session[-SESSION_EVENTS:]
            padded[i, : len(recent)] = recent
            lengths[i] = len(recent)
        out = Scored(
            np.zeros(b, np.int64),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width)),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width), np.int64),
            np.zeros(b, np.bool_),
        )
        if len(self._second.rows) != len(rows):
            self._second = second_order(len(rows))
        search = int(self._found.search[0])
        now, oldest = (now_ms, now_ms - self._second_age_ms) if self._second_age_ms else (search + 1, search + 1)
        mode_of = np.zeros(b, np.int64) if modes is None else np.array(modes, np.int64)
        _score(
            padded, lengths, mode_of, rows, slots.table, slots.slot_at, embedding, totals, self.params, self.config,
            self.forest if by_trees else NO_FOREST, now_ms, self._found, out,
            self._second._replace(now=now, oldest=oldest),
        )  # fmt: skip
        return out

    def warm_up(self) -> None:
        """Compile the kernels, so that the first request does not wait for it."""
        from state.item_rows import empty_items

        slots = SlotMap(16)
        slots.assign(np.array([1, 2], np.uint64))
        self.score([np.array([1, 2], np.uint64)], empty_items(16), slots, np.zeros(SIZE, np.int64), 1)
