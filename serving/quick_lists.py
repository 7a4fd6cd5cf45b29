"""Lists that need nothing but the mixture, made for a whole batch at once.

That is most of them: no pins or promotions, no variety or exploration asked for, no habits, and enough candidates
left. They are what the sources and `apply_rules` would have made (a test compares them); the others go that way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.blend import Scored
from serving.caps import NOBODY, fill_places, limits_of
from serving.columns import TextColumn
from serving.items import Rules
from serving.lists import Listed, Lists
from serving.mixture_reasons import numbers_of_said
from serving.rules import Acting
from serving.selection import Selection
from serving.shop import Shop
from serving.visitor import Visitor
from state.distinct import distinct
from state.user_rows import UserRows

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
NO_FACTORS = np.zeros(0)


class Waiting(NamedTuple):
    """One request of the batch, ready for its list."""

    place: int
    """In the batch."""
    visitor: Visitor
    acting: Acting
    want: int
    """How many candidates are enough."""


@numba.njit(cache=True)
def _choose(
    places: Ints, wants: Ints, counts: Ints, rows: Ints, n: Ints, probability: Floats, mask: Flags, factors: Floats,
    codes: npt.NDArray[np.int32], limits: Ints, excluded: Ints, ends: Ints, met_in: Ints, answer: int, out: Ints,
) -> None:  # fmt: skip
    """Write the candidates of each request's list, best first; nothing where they are not enough.

    `rows`, `probability` (B, M), `n` (B,): candidates of the batch; `places`, `wants`, `counts` (G,): requests that
    share everything else; `excluded[ends[g - 1] : ends[g]]`: rows that request g must not see.
    """
    for g in range(len(places)):
        b = places[g]
        for k in range(ends[g - 1] if g > 0 else 0, ends[g]):
            if excluded[k] >= 0:
                met_in[excluded[k]] = answer + g
        left, worth, n_left = np.empty(n[b], np.int64), np.empty(n[b]), 0
        for k in range(n[b]):
            row = rows[b, k]
            if row >= 0 and mask[row] and met_in[row] != answer + g:
                left[n_left] = k
                worth[n_left] = probability[b, k] * (factors[row] if len(factors) > 0 else 1.0)
                n_left += 1
        if n_left < wants[g]:
            continue
        order = left[:n_left]
        if len(factors) > 0:
            order = order[np.argsort(-worth[:n_left], kind="mergesort")]  # stable: equal ones stay as they are
        if len(limits) > 0:
            held_back = np.zeros((len(limits), n[b]), np.bool_)
            nothing, nobody = np.zeros((len(limits), counts[g]), np.int32), np.zeros(counts[g], np.bool_)
            fill_places(order, codes[:, b], limits, 0, nothing, nobody, out[b, : counts[g]], held_back)
        else:
            out[b, : counts[g]] = order[: counts[g]]


@numba.njit(cache=True)
def _look_up(
    chosen: Ints, rows: Ints, scored: Scored, n: Ints, shown: Ints, items: Uint64s, worth: Floats, why: Ints,
    seeds: Uint64s,
) -> None:  # fmt: skip
    """Write how many candidates each list has and, of each: catalogue row, id hash, score, what decided on it."""
    for b in range(len(chosen)):
        for k in range(chosen.shape[1]):
            at = chosen[b, k]
            if at == NOBODY:
                break
            n[b] += 1
            shown[b, k], items[b, k], worth[b, k] = rows[b, at], scored.item[b, at], scored.probability[b, at]
            why[b, k], seeds[b, k] = scored.why[b, at], scored.seed[b, at]


def is_quick(visitor: Visitor, acting: Acting) -> bool:
    """Say whether a list may be made of the mixture's candidates alone, if they are enough."""
    request, plan = visitor.request, visitor.plan
    special = request.cursor or request.explain or request.deadline_ms or plan.diversity or plan.explore
    return not (special or acting.fixing)


def quick_lists(
    shop: Shop, waiting: Sequence[Waiting], users: UserRows, scored: Scored, rows: Ints, book: int
) -> dict[int, Listed]:
    """Return lists by place in the batch, of those that have enough candidates; `rows` (B, M): their catalogue rows."""
    chosen = np.full((len(rows), max(one.visitor.plan.count for one in waiting)), NOBODY)
    groups: dict[tuple[Selection, Acting], list[Waiting]] = {}
    for one in waiting:
        visitor = one.visitor
        selection = shop.selections.of(visitor.plan.in_stock, visitor.request.filters, one.acting, book)
        groups.setdefault((selection, one.acting), []).append(one)
    for (selection, acting), members in groups.items():
        _choose_for(shop, selection, acting, members, scored, rows, book, chosen)
    n, shape = np.zeros(len(chosen), np.int64), chosen.shape
    shown, why, worth = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    items, seeds = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
    _look_up(chosen, rows, scored, n, shown, items, worth, why, seeds)
    moved, rules = _moved(shop, groups, n, shown, book)
    said = numbers_of_said(shop, {one.place: one.visitor for one in waiting}, users, n, why, seeds, items)
    lists = Lists(shop.heads, shop.phrases.spoken, n, shown, items, worth, said, moved, rules)
    return {b: Listed(lists, b) for b in np.flatnonzero(n).tolist()}


def _choose_for(
    shop: Shop, selection: Selection, acting: Acting, members: list[Waiting], scored: Scored, rows: Ints, book: int,
    chosen: Ints,
) -> None:  # fmt: skip
    """Choose for requests that see the same items under the same rules."""
    excluded: list[int] = []
    ends = []
    for one in members:
        excluded += [hash_id(item) for item in one.visitor.request.exclude]
        if one.visitor.refuses:
            excluded += one.visitor.refused().tolist()
        ends.append(len(excluded))
    codes = np.zeros((len(acting.caps), *rows.shape), np.int32)
    for c, cap in enumerate(acting.caps):
        column: TextColumn = getattr(shop.catalogue, cap.by)
        codes[c] = column.codes(np.maximum(rows, 0))
    answer = shop.scratch.begin(len(shop.catalogue), len(members))
    _choose(
        np.array([one.place for one in members]), np.array([one.want for one in members]),
        np.array([one.visitor.plan.count for one in members]), rows, scored.n, scored.probability, selection.mask,
        shop.selections.factors(acting, book) if acting.boosts else NO_FACTORS, codes, limits_of(acting.caps),
        shop.catalogue.rows_of(np.array(excluded, np.uint64)), np.array(ends), shop.scratch.met_in,
        answer, chosen,
    )  # fmt: skip


def _moved(
    shop: Shop, groups: dict[tuple[Selection, Acting], list[Waiting]], n: Ints, shown: Ints, book: int
) -> tuple[Ints, list[Rules]]:
    """Return which rules moved each item shown, as a place among sets of rules, and these sets."""
    moved = np.zeros(shown.shape, np.int64)
    sets: dict[Rules, int] = {(): 0}
    for (_, acting), members in groups.items():
        places = [one.place for one in members if n[one.place]]
        for rule in acting.boosts if places else ():
            touched, known = np.zeros(shown.shape, np.bool_), list(sets)
            touched[places] = shop.selections.matching(rule, book)[shown[places]]
            for number in distinct(moved[touched]).tolist():
                longer = sets.setdefault((*known[number], rule.id), len(sets))
                moved[touched & (moved == number)] = longer
    return moved, list(sets)
