"""Lists that need one source alone, the mixture or the list of everything, made for a whole batch at once.

That is most of them: no pins or promotions, no variety or exploration asked for, no habits, and enough candidates
left. They are what the sources and `apply_rules` would have made (a test compares them); the others go that way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.ids import hash_id
from serving.candidates.score_reasons import numbers_of_said
from serving.ranking.caps import EMPTY, fill_places, limits_of
from serving.rendering.lists import LazyItems, RenderedLists
from serving.request.answer import Rules
from serving.request.columns import TextColumn
from serving.request.requests import Filters
from serving.rules.item_filter import Selection
from serving.rules.model import Acting
from serving.scoring.origins import BY_POPULARITY
from serving.scoring.scorer import Scored
from serving.snapshot.scratch import RANK_DECAY
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor
from state.rows.user_rows import UserRows

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
NO_FACTORS = np.zeros(0)
FEW = 256
"""Candidates that insertion puts in order; with more of them it could take longer than sorting."""


class RankingInput(NamedTuple):
    """One request of the batch, ready for its list."""

    place: int
    """In the batch."""
    visitor: Visitor
    acting: Acting
    want: int
    """How many candidates are enough."""
    popular: bool = False
    """Whether they are those of the list of everything, not of the mixture."""


class Selected(NamedTuple):
    """What lists are chosen from, best first: columns (R, M), of each of whose rows the first `n` (R,) count."""

    n: Ints
    row: Ints  # in the catalogue
    item: Uint64s
    score: Floats
    seed: Uint64s
    reason: Ints
    ranked: bool  # what they are worth follows from the rank; else it is the score


@njit_no_refcount()
def apply_filter(
    candidates: Selected, b: int, mask: Flags, factors: Floats, met_in: Ints, excluded: int, left: Ints, worth: Floats
) -> int:
    """Write which candidates of row `b` may be shown and what they are worth; return how many.

    `met_in` is `excluded` at the rows that must not be shown.
    """
    n_left = 0
    for k in range(candidates.n[b]):
        row = candidates.row[b, k]
        if row >= 0 and mask[row] and met_in[row] != excluded:
            left[n_left] = k
            n_left += 1
            value = RANK_DECAY**n_left if candidates.ranked else candidates.score[b, k]
            worth[n_left - 1] = value * (factors[row] if len(factors) > 0 else 1.0)
    return n_left


@njit()
def put_in_order(worth: Floats, candidates: Ints) -> None:
    """Put candidates in the order of falling worth, equal ones as they are; `worth` is not kept."""
    if len(worth) > FEW:
        candidates[:] = candidates[np.argsort(-worth, kind="mergesort")]
        return
    for k in range(1, len(worth)):  # nearly all are where they belong: rules move some of those that came best first
        value, one, at = worth[k], candidates[k], k
        while at > 0 and worth[at - 1] < value:
            worth[at], candidates[at] = worth[at - 1], candidates[at - 1]
            at -= 1
        worth[at], candidates[at] = value, one


@njit()
def _choose(
    places: Ints, at: Ints, wants: Ints, counts: Ints, candidates: Selected, mask: Flags, factors: Floats,
    codes: npt.NDArray[np.int32], limits: Ints, excluded: Ints, ends: Ints, met_in: Ints, answer: int, out: Ints,
) -> None:  # fmt: skip
    """Write the candidates of each request's list, best first; nothing where they are not enough.

    `places`, `at` (their rows of candidates), `wants`, `counts` (G,): requests that share everything else;
    `excluded[ends[g - 1] : ends[g]]`: rows that request g must not see.
    """
    n, width = candidates.n, candidates.row.shape[1]
    left, worth = np.empty(width, np.int64), np.empty(width)
    for g in range(len(places)):
        b, place = at[g], places[g]
        for k in range(ends[g - 1] if g > 0 else 0, ends[g]):
            if excluded[k] >= 0:
                met_in[excluded[k]] = answer + g
        n_left = apply_filter(candidates, b, mask, factors, met_in, answer + g, left, worth)
        if n_left < wants[g]:
            continue
        order = left[:n_left]
        if len(factors) > 0:
            put_in_order(worth[:n_left], order)
        if len(limits) > 0:
            held_back = np.zeros((len(limits), n[b]), np.bool_)
            nothing, nobody = np.zeros((len(limits), counts[g]), np.int32), np.zeros(counts[g], np.bool_)
            fill_places(order, codes[:, b], limits, 0, nothing, nobody, out[place, : counts[g]], held_back)
        else:
            out[place, : counts[g]] = order[: counts[g]]


@njit_no_refcount()
def _look_up(
    places: Ints, at: Ints, chosen: Ints, candidates: Selected, n: Ints, shown: Ints, items: Uint64s, worth: Floats,
    reason: Ints, seeds: Uint64s,
) -> None:  # fmt: skip
    """Write how many candidates each list has and, of each: catalogue row, id hash, score, what decided on it."""
    for g in range(len(places)):
        b, place = at[g], places[g]
        for k in range(chosen.shape[1]):
            c = chosen[place, k]
            if c == EMPTY:
                break
            n[place] += 1
            shown[place, k], items[place, k] = candidates.row[b, c], candidates.item[b, c]
            worth[place, k] = candidates.score[b, c]
            reason[place, k], seeds[place, k] = candidates.reason[b, c], candidates.seed[b, c]


@njit_no_refcount()
def _mark(places: Ints, n: Ints, shown: Ints, matching: Flags, moved: Ints, met: Flags) -> None:
    """Mark the sets of rules that have moved items that match."""
    for place in places:
        for k in range(n[place]):
            met[moved[place, k]] |= matching[shown[place, k]]


@njit_no_refcount()
def _move(places: Ints, n: Ints, shown: Ints, matching: Flags, longer: Ints, moved: Ints) -> None:
    """Put `longer` sets in the place of those that have moved items that match."""
    for place in places:
        for k in range(n[place]):
            if matching[shown[place, k]]:
                moved[place, k] = longer[moved[place, k]]


def is_quick(visitor: Visitor, acting: Acting) -> bool:
    """Say whether a list may be made of one source's candidates alone, if they are enough."""
    request, plan = visitor.request, visitor.plan
    special = request.cursor or request.explain or request.deadline_ms or plan.diversity or plan.explore
    return not (special or acting.fixing)


def asks_everybody(visitor: Visitor) -> bool:
    """Say whether the popular items of a request are those of the whole shop."""
    request = visitor.request
    return not (request.country or (request.filters is not None and request.filters.category))


def quick_lists(
    shop: ServingSnapshot, waiting: Sequence[RankingInput], users: UserRows, scored: Scored, rows: Ints, book: int
) -> dict[int, LazyItems]:
    """Return lists by place in the batch, of those that have enough candidates; `rows` (B, M): their catalogue rows."""
    shape = len(rows), max(one.visitor.plan.count for one in waiting)
    chosen, n = np.full(shape, EMPTY), np.zeros(len(rows), np.int64)
    shown, reason, worth = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    items, seeds = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
    groups: dict[tuple[bool, bool, Filters | None, Acting], list[RankingInput]] = {}
    for one in waiting:
        plan, request = one.visitor.plan, one.visitor.request
        groups.setdefault((one.popular, plan.in_stock, request.filters, one.acting), []).append(one)
    mixture = Selected(scored.n, rows, scored.item, scored.probability, scored.seed, scored.reason, False)
    for (popular, in_stock, filters, acting), members in groups.items():
        selection = shop.selections.of(in_stock, filters, acting, book)
        candidates = _everything(shop) if popular else mixture
        places = np.array([one.place for one in members])
        at = np.zeros_like(places) if popular else places
        _choose_for(shop, selection, acting, members, places, at, candidates, book, chosen)
        _look_up(places, at, chosen, candidates, n, shown, items, worth, reason, seeds)
    moved, rules = _moved(shop, [(acting, members) for (*_, acting), members in groups.items()], n, shown, book)
    said = numbers_of_said(shop, {one.place: one.visitor for one in waiting}, users, n, reason, seeds, items)
    lists = RenderedLists(shop.heads, shop.phrases.rendered, n, shown, items, worth, said, moved, rules)
    return {b: LazyItems(lists, b) for b in np.flatnonzero(n).tolist()}


def _everything(shop: ServingSnapshot) -> Selected:
    """Return the list of everything as one row."""
    found = shop.popular
    m = len(found.hashes)
    return Selected(
        np.array([m]), shop.catalogue.rows_of(found.hashes)[None, :], found.hashes[None, :], found.weight[None, :],
        np.zeros((1, m), np.uint64), np.full((1, m), BY_POPULARITY), True,
    )  # fmt: skip


def _choose_for(
    shop: ServingSnapshot, selection: Selection, acting: Acting, members: list[RankingInput], places: Ints, at: Ints,
    candidates: Selected, book: int, chosen: Ints,
) -> None:  # fmt: skip
    """Choose for requests that see the same items under the same rules."""
    excluded: list[int] = []
    ends = []
    for one in members:
        excluded += [hash_id(item) for item in one.visitor.request.exclude]
        if one.visitor.refuses:
            excluded += one.visitor.refused().tolist()
        ends.append(len(excluded))
    codes = np.zeros((len(acting.caps), *candidates.row.shape), np.int32)
    for c, cap in enumerate(acting.caps):
        column: TextColumn = getattr(shop.catalogue, cap.by)
        codes[c] = column.codes(np.maximum(candidates.row, 0))
    answer = shop.scratch.begin(len(shop.catalogue), len(members))
    _choose(
        places, at, np.array([one.want for one in members]), np.array([one.visitor.plan.count for one in members]),
        candidates, selection.mask, shop.selections.factors(acting, book) if acting.boosts else NO_FACTORS, codes,
        limits_of(acting.caps), shop.catalogue.rows_of(np.array(excluded, np.uint64)), np.array(ends),
        shop.scratch.met_in, answer, chosen,
    )  # fmt: skip


def _moved(
    shop: ServingSnapshot, groups: list[tuple[Acting, list[RankingInput]]], n: Ints, shown: Ints, book: int
) -> tuple[Ints, list[Rules]]:
    """Return which rules moved each item shown, as a place among sets of rules, and these sets."""
    moved = np.zeros(shown.shape, np.int64)
    sets: dict[Rules, int] = {(): 0}
    for acting, members in groups:
        places = np.array([one.place for one in members])
        for rule in acting.boosts:
            matching, known = shop.selections.matching(rule, book), list(sets)
            met = np.zeros(len(known), np.bool_)
            _mark(places, n, shown, matching, moved, met)
            longer = np.arange(len(known))
            for number in np.flatnonzero(met).tolist():
                longer[number] = sets.setdefault((*known[number], rule.id), len(sets))
            _move(places, n, shown, matching, longer, moved)
    return moved, list(sets)
