"""Sources of items, one function each, and the order in which a strategy tries its sources.

A source adds items to the pool of a request, best first, with the reason of each. The names of functions are public:
an answer's `skipped_sources` has them.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.candidates.context import RequestContext
from serving.candidates.pool import Priority, shares_of_best, uniform
from serving.candidates.related_items import content, cooccurring, similar
from serving.candidates.repurchase import due_repurchases, habitual_purchases, repeat_reason_key
from serving.candidates.score_reasons import IN_SCOPE, WHOLE_SHOP, reason_key_of
from serving.rendering.items import RenderedReason
from serving.request.reasons import Reason, reason
from serving.snapshot.top_lists import TopList
from state.rows import lane_rows

WHAT_WAS_ASKED = {"en": "what you asked for", "de": "dem, was Sie suchen"}
SHARE_OF_NEW = 0.5
"""Of all items, by when they came: these are called the newest."""


def next_items(context: RequestContext) -> None:
    """Add what comes next in the session, by the calibrated mixture (docs/model.md)."""
    visitor, scored, i = context.visitor, context.scored, context.i
    if scored is None or not len(visitor.session) or scored.n[i] == 0:
        return
    shop, m = context.shop, int(scored.n[i])
    items, probability = scored.item[i, :m], scored.probability[i, :m]
    reason, seeds = scored.reason[i, :m], scored.seed[i, :m]

    def say(k: int) -> RenderedReason:
        return shop.reasons[reason_key_of(shop, visitor, int(reason[k]), int(seeds[k]), int(items[k]))]

    context.pool.add(items, probability, uniform(visitor.level, say), context.rows)


def vector_neighbours(context: RequestContext) -> None:
    """Add the items whose factors are nearest to the user's vector."""
    index = context.shop.index
    vector = context.vectors.of(context.i) if index is not None else None
    if index is None or vector is None or not vector.any():
        return
    selection = context.pool.selection
    hashes, scores = index.search(vector, 2 * context.want, selection if selection.narrow else None)
    tier = Priority("personalised", lambda places: _affinities(context, hashes[places]))
    context.pool.add(hashes, shares_of_best(scores.astype(np.float64)), tier)


def popular(context: RequestContext, top_lists: list[tuple[TopList, str]] | None = None) -> None:
    """Add the most popular items of the category in the filter, of the visitor's country, and of the whole shop.

    `top_lists`: others instead of these, with the names to show.
    """
    for found, name in _top_lists(context) if top_lists is None else top_lists:
        _add_top_list(context, found, name, np.arange(len(found.hashes)))


def offline_popular(context: RequestContext) -> None:
    """Add the popular items of the whole shop as they were last read; the store is not needed."""
    found = context.shop.popular
    rendered = RenderedReason("popular", reason("fallback", context.lang, kind="last_known_popular"))
    context.pool.add(found.hashes, found.share, uniform("last_known_popular", lambda k: rendered))


def trending(context: RequestContext) -> None:
    """Add the items whose popularity at the short half-life exceeds that at the long one the most."""
    for found, name in _top_lists(context):
        _add_top_list(context, found, name, np.argsort(-found.trend, kind="stable"), by_trend=True)


def _top_lists(context: RequestContext) -> list[tuple[TopList, str]]:
    request, shop, now_ms = context.visitor.request, context.shop, context.visitor.now_ms
    wanted = []
    if request.filters is not None and request.filters.category:
        wanted.append((lane_rows.CATEGORY, request.filters.category))
    if request.country:
        wanted.append((lane_rows.COUNTRY, request.country))
    named = [(shop.scope(kind, name, now_ms), name) for kind, name in wanted]
    return [*named, (shop.popular, WHOLE_SHOP[context.lang])]


def _add_top_list(
    context: RequestContext, found: TopList, name: str, order: npt.NDArray[np.int64], by_trend: bool = False
) -> None:
    if not len(order):
        return
    trend = found.trending[order]
    scores = shares_of_best(np.exp2(found.trend[order] - found.trend[order[0]])) if by_trend else found.share
    context.pool.add(
        found.hashes[order], scores,
        uniform("popular", lambda k: context.shop.reasons["popular", IN_SCOPE[bool(trend[k])], context.lang, name]),
    )  # fmt: skip


def new_arrivals(context: RequestContext) -> None:
    """Add the newest items of the shop, the newest first."""
    _add_newest(context, context.pool.selection.last(4 * context.want))


def _add_newest(context: RequestContext, rows: npt.NDArray[np.int64]) -> None:
    shop, lang = context.shop, context.lang
    first_new = len(shop.catalogue) * (1 - SHARE_OF_NEW)

    def say(k: int) -> RenderedReason:
        return shop.reasons["new", "new_arrival" if rows[k] >= first_new else "available", lang, None]

    context.pool.add(
        shop.catalogue.hashes()[rows], np.power(1.0 + np.arange(len(rows)), -1.0), uniform("new", say), rows=rows
    )


def any_eligible(context: RequestContext) -> None:
    """Add what may be shown, so that lists are full: of a narrow selection the most popular, else the newest."""
    shop, lang, pool, plan = context.shop, context.lang, context.pool, context.visitor.plan
    if not pool.selection.narrow:
        left = [row for row in pool.selection.last(4 * context.want).tolist() if pool.allows(row)]
        # Exploration draws of what no source has brought.
        _add_newest(context, np.array(left[: max(0, context.want - plan.explore - pool.n)], np.int64))
        return
    found = shop.most_popular(pool.selection, context.visitor.now_ms)
    asked = context.visitor.request.filters is not None
    scope = WHAT_WAS_ASKED[lang] if asked else WHOLE_SHOP[lang]

    def say(k: int) -> RenderedReason:
        if found.weights[k] > 0:
            return shop.reasons["popular", IN_SCOPE[False], lang, scope]
        return shop.reasons["popular", "available", lang, None]

    context.pool.add(found.hashes, shares_of_best(found.weights.astype(np.float64)), uniform("popular", say))


def seen_again(context: RequestContext) -> None:
    """Add what the visitor has seen already, the latest first; behind everything else with `repeat: new_first`."""
    visitor, reasons = context.visitor, context.shop.reasons
    items = visitor.shown_last
    context.pool.add(
        items, np.power(1.0 + np.arange(len(items)), -1.0),
        uniform(visitor.level, lambda k: reasons[repeat_reason_key(visitor, int(items[k]))]),
    )  # fmt: skip


def _affinities(context: RequestContext, items: npt.NDArray[np.uint64]) -> list[RenderedReason]:
    """Return for each item which affinity of the user it matches, or that it matches what the user usually chooses."""
    catalogue, lang = context.shop.catalogue, context.lang
    at_large, rows = context.shop.reasons["vector", "matches_taste", lang, None], catalogue.rows_of(items)
    prices = catalogue.number("price", rows).tolist()
    affinities = [_affinity(context, row, price) for row, price in zip(rows.tolist(), prices, strict=True)]
    return [RenderedReason("vector", one) if one else at_large for one in affinities]


def _affinity(context: RequestContext, row: int, price: float) -> Reason | None:
    """Return the reason that names which affinity of the user an item matches; None for no affinity."""
    catalogue, visitor, lang = context.shop.catalogue, context.visitor, context.lang
    for kind, value in (("brand", catalogue.brand.get(row)), ("category", catalogue.category.get(row))):
        if value and hash_id(value) & 0xFFFFFFFF in visitor.liked:
            return reason("matches_affinity", lang, kind=kind, value=value)
    usual_price = visitor.price_ln
    if usual_price is not None and price > 0 and abs(math.log(price) - usual_price[0]) <= usual_price[1]:
        return reason("matches_price", lang, value=f"{price:g}")
    return None


Source = Callable[[RequestContext], None]
"""Called at most once for a request that lacks candidates. It may read rows and so block for as long as the store
allows, and raise StoreUnavailable."""
SOURCES: dict[str, tuple[Source, ...]] = {
    "hybrid": (habitual_purchases, next_items, vector_neighbours, popular, any_eligible),
    "session": (next_items, popular, any_eligible),
    "collaborative": (vector_neighbours, popular, any_eligible),
    "content": (content, popular, any_eligible),
    "similar": (similar, cooccurring, content, popular, any_eligible),
    "bought_together": (cooccurring, similar, popular, any_eligible),
    "trending": (trending, any_eligible),
    "popular": (popular, any_eligible),
    "buy_again": (due_repurchases, popular, any_eligible),
    "new": (new_arrivals, popular),
}
WITH_MIXTURE, WITH_VECTOR, WITH_HABITS = (
    frozenset(strategy for strategy, sources in SOURCES.items() if source in sources)
    for source in (next_items, vector_neighbours, habitual_purchases)
)
"""Strategies by what has to be read or computed for the batch before their sources are tried."""
OF_WHAT_IS_BOUGHT = (habitual_purchases, due_repurchases)
"""Sources that show again what the visitor has had, whatever `repeat` says of the others."""
FOR_EVERYBODY = frozenset(
    strategy
    for strategy, sources in SOURCES.items()
    if set(sources) <= {habitual_purchases, next_items, vector_neighbours, popular, any_eligible}
)
"""Strategies that show what is popular to a visitor of whom nothing is known."""
