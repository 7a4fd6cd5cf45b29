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
from serving.items import Items, Rules
from serving.mixture_reasons import CODE, what_decided
from serving.rules import Acting
from serving.selection import Selection
from serving.shop import Shop
from serving.visitor import Visitor

Ints = npt.NDArray[np.int64]
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
    chosen: Ints, rows: Ints, scored: Scored, n: Ints, shown: Ints, hashes: npt.NDArray[np.uint64], worth: Floats,
    why: Ints,
) -> None:  # fmt: skip
    """Write how many candidates each list has and, of each: catalogue row, id hash, score, what decided on it."""
    for b in range(len(chosen)):
        for k in range(chosen.shape[1]):
            at = chosen[b, k]
            if at == NOBODY:
                break
            n[b] += 1
            shown[b, k], hashes[b, k] = rows[b, at], scored.item[b, at]
            worth[b, k], why[b, k] = scored.probability[b, at], scored.why[b, at] * CODE + scored.seed[b, at]


def is_quick(visitor: Visitor, acting: Acting) -> bool:
    """Say whether a list may be made of the mixture's candidates alone, if they are enough."""
    request, plan = visitor.request, visitor.plan
    special = request.cursor or request.explain or request.deadline_ms or plan.diversity or plan.explore
    return not (special or acting.fixing)


def quick_lists(shop: Shop, waiting: Sequence[Waiting], scored: Scored, rows: Ints, book: int) -> dict[int, Items]:
    """Return lists by place in the batch, of those that have enough candidates; `rows` (B, M): their catalogue rows."""
    chosen = np.full((len(rows), max(one.visitor.plan.count for one in waiting)), NOBODY)
    groups: dict[tuple[Selection, Acting], list[Waiting]] = {}
    for one in waiting:
        visitor = one.visitor
        selection = shop.selections.of(visitor.plan.in_stock, visitor.request.filters, one.acting, book)
        groups.setdefault((selection, one.acting), []).append(one)
    for (selection, acting), members in groups.items():
        _choose_for(shop, selection, acting, members, scored, rows, book, chosen)
    shown, hashes = np.zeros(chosen.shape, np.int64), np.zeros(chosen.shape, np.uint64)
    worth, why = np.zeros(chosen.shape), np.zeros(chosen.shape, np.int64)
    n_chosen = np.zeros(len(chosen), np.int64)
    _look_up(chosen, rows, scored, n_chosen, shown, hashes, worth, why)
    counts, scores, items, codes = n_chosen.tolist(), worth.tolist(), hashes.tolist(), why.tolist()
    lists = {}
    for (_, acting), members in groups.items():
        full = [one for one in members if counts[one.place]]
        for one, moved in zip(full, _moved(shop, acting, full, shown, book), strict=True):
            place, n = one.place, counts[one.place]
            said = what_decided(shop, one.visitor, codes[place][:n], items[place][:n])
            lists[place] = Items(shop.heads, shown[place, :n].tolist(), scores[place][:n], said, moved[:n])
    return lists


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


def _moved(shop: Shop, acting: Acting, members: list[Waiting], shown: Ints, book: int) -> list[list[Rules]]:
    """Return the rules that moved each item shown, by member."""
    moved: list[list[Rules]] = [[()] * shown.shape[1] for _ in members]
    for rule in acting.boosts if members else ():
        touched = shop.selections.matching(rule, book)[shown[[one.place for one in members]]]
        for g, k in zip(*(at.tolist() for at in np.nonzero(touched)), strict=True):
            moved[g][k] = (*moved[g][k], rule.id)
    return moved
