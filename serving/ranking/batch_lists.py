"""Lists that need one source alone, the mixture or the list of everything, made for a whole batch at once.

That is most of them: no pins or promotions, no variety or exploration asked for, no habits, and enough candidates
left; the others go by the sources and `apply_rules`, in `serving.ranking.answers`. Both ways make the same lists:
`test_batch_lists.test_quick_lists_are_those_of_the_sources` compares them. This one takes half an answer's time less.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.candidates.score_reasons import reason_numbers
from serving.ranking.caps import limits_of
from serving.ranking.fill_places import EMPTY
from serving.ranking.list_kernels import Selected, choose, look_up_columns, mark_moved, move
from serving.rendering.lists import LazyItems, RenderedLists
from serving.request.answer import Rules
from serving.request.columns import TextColumn
from serving.request.requests import Filters
from serving.rules.acting import Acting
from serving.rules.item_filter import Selection
from serving.scoring.origins import BY_POPULARITY
from serving.scoring.scorer import Scored
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor
from state.rows.session import MAX_DISTINCT
from state.rows.user_rows import UserRows

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
NO_FACTORS = np.zeros(0)


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


def suits_batch(visitor: Visitor, acting: Acting) -> bool:
    """Return whether a list may be made of one source's candidates alone, if they are enough."""
    request, plan = visitor.request, visitor.plan
    special = request.cursor or request.explain or request.deadline_ms or plan.diversity or plan.explore
    return not (special or acting.fixing)


def wants_whole_shop(visitor: Visitor) -> bool:
    """Return whether the popular items of a request are those of the whole shop."""
    request = visitor.request
    return not (request.country or (request.filters is not None and request.filters.category))


def batch_lists(
    shop: ServingSnapshot, waiting: Sequence[RankingInput], users: UserRows, scored: Scored, rows: Ints, book: int
) -> dict[int, LazyItems]:
    """Return lists by place in the batch, of those that have enough candidates; `rows` (B, M): their catalogue rows."""
    shape = len(rows), max(one.visitor.plan.count for one in waiting)
    chosen, n = np.full(shape, EMPTY), np.zeros(len(rows), np.int64)
    shown, reason, scores = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    items, seeds = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
    groups: dict[tuple[bool, bool, Filters | None, Acting], list[RankingInput]] = {}
    for one in waiting:
        plan, request = one.visitor.plan, one.visitor.request
        groups.setdefault((one.popular, plan.in_stock, request.filters, one.acting), []).append(one)
    mixture = Selected(scored.n, rows, scored.item, scored.probability, scored.seed, scored.reason)
    for (popular, in_stock, filters, acting), members in groups.items():
        selection = shop.selections.of(in_stock, filters, acting, book)
        candidates = _everything(shop) if popular else mixture
        places = np.array([one.place for one in members])
        at = np.zeros_like(places) if popular else places
        factors = shop.selections.factors(acting, book) if acting.boosts else NO_FACTORS
        _choose_for(shop, selection, acting, members, places, at, candidates, factors, chosen)
        look_up_columns(places, at, chosen, candidates, factors, n, shown, items, scores, reason, seeds)
    moved, rules = _moved(shop, [(acting, members) for (*_, acting), members in groups.items()], n, shown, book)
    reasons = reason_numbers(shop, {one.place: one.visitor for one in waiting}, users, n, reason, seeds, items)
    fields = {one.place: one.visitor.plan.fields for one in waiting if one.visitor.plan.fields}
    lists = RenderedLists(shop.heads, shop.reasons.rendered, n, shown, items, scores, reasons, moved, rules, fields)
    return {b: LazyItems(lists, b) for b in np.flatnonzero(n).tolist()}


def _everything(shop: ServingSnapshot) -> Selected:
    """Return the list of everything as one row."""
    found = shop.popular
    m = len(found.hashes)
    return Selected(
        np.array([m]), shop.catalogue.rows_of(found.hashes)[None, :], found.hashes[None, :], found.share[None, :],
        np.zeros((1, m), np.uint64), np.full((1, m), BY_POPULARITY),
    )  # fmt: skip


def _choose_for(
    shop: ServingSnapshot, selection: Selection, acting: Acting, members: list[RankingInput], places: Ints, at: Ints,
    candidates: Selected, factors: Floats, chosen: Ints,
) -> None:  # fmt: skip
    """Choose for requests that see the same items under the same rules."""
    excluded: list[int] = []
    ends = []
    for one in members:
        excluded += [hash_id(item) for item in one.visitor.request.exclude]
        if one.visitor.refuses:
            excluded += one.visitor.refused().tolist()
        if one.popular or len(one.visitor.held_back) > MAX_DISTINCT:  # the mixture leaves out as many
            excluded += one.visitor.held_back.tolist()
        ends.append(len(excluded))
    codes = np.zeros((len(acting.caps), *candidates.row.shape), np.int32)
    for c, cap in enumerate(acting.caps):
        column: TextColumn = getattr(shop.catalogue, cap.by)
        codes[c] = column.codes(np.maximum(candidates.row, 0))
    answer = shop.scratch.begin(len(shop.catalogue), len(members))
    choose(
        places, at, np.array([one.want for one in members]), np.array([one.visitor.plan.count for one in members]),
        candidates, selection.mask, factors, codes,
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
            matched = np.zeros(len(known), np.bool_)
            mark_moved(places, n, shown, matching, moved, matched)
            longer = np.arange(len(known))
            for number in np.flatnonzero(matched).tolist():
                longer[number] = sets.setdefault((*known[number], rule.id), len(sets))
            move(places, n, shown, matching, longer, moved)
    return moved, list(sets)
