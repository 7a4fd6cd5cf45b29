"""Where items come from, one function per source, and which sources a strategy asks in which order."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.candidates.context import RequestContext
from serving.candidates.pool import Priority, uniform
from serving.candidates.related_items import content, cooccurring, similar
from serving.candidates.repurchase import due_repurchases, habitual_purchases
from serving.candidates.score_reasons import IN_SCOPE, WHOLE_SHOP, phrase_of
from serving.rendering.items import RenderedReason
from serving.request.reasons import reason
from serving.snapshot.snapshot import ScopeItems
from state.rows import lane_rows

WHAT_WAS_ASKED = {"en": "what you asked for", "de": "dem, was Sie suchen"}


def next_items(context: RequestContext) -> None:
    """The calibrated mixture over the session (docs/model.md)."""
    visitor, scored, i = context.visitor, context.scored, context.i
    if scored is None or not len(visitor.session) or scored.n[i] == 0:
        return
    shop, m = context.shop, int(scored.n[i])
    items, probability = scored.item[i, :m], scored.probability[i, :m]
    reason, seeds = scored.reason[i, :m], scored.seed[i, :m]

    def say(k: int) -> RenderedReason:
        return shop.phrases[phrase_of(shop, visitor, int(reason[k]), int(seeds[k]), int(items[k]))]

    context.pool.add(items, probability, uniform(visitor.level, say), probability, context.rows)


def vector_neighbours(context: RequestContext) -> None:
    """The nearest item factors to the user's vector."""
    index = context.shop.index
    vector = context.vectors.of(context.i) if index is not None else None
    if index is None or vector is None or not vector.any():
        return
    selection = context.pool.selection
    hashes, scores = index.search(vector, 2 * context.want, selection if selection.narrow else None)
    tier = Priority("personalised", lambda places: _affinities(context, hashes[places]))
    context.pool.add(hashes, scores.astype(np.float64), tier)


def popular(context: RequestContext, scopes: list[tuple[ScopeItems, str]] | None = None) -> None:
    """The heaviest items: of the category asked for, of the visitor's country, of everything."""
    for found, name in _scopes(context) if scopes is None else scopes:
        _add_scope(context, found, name, np.arange(len(found.hashes)))


def offline_popular(context: RequestContext) -> None:
    """The list of everything as it was last read: what is left without the store."""
    found = context.shop.popular
    said = RenderedReason("popular", reason("fallback", context.lang, kind="last_known_popular"))
    context.pool.add(found.hashes, found.weight, uniform("last_known_popular", lambda k: said))


def trending(context: RequestContext) -> None:
    """The items whose short half-life outruns their long one the most."""
    for found, name in _scopes(context):
        _add_scope(context, found, name, np.argsort(-found.trend, kind="stable"), by_trend=True)


def _scopes(context: RequestContext) -> list[tuple[ScopeItems, str]]:
    request, shop, now_ms = context.visitor.request, context.shop, context.visitor.now_ms
    scopes = []
    if request.filters is not None and request.filters.category:
        scopes.append((lane_rows.CATEGORY, request.filters.category))
    if request.country:
        scopes.append((lane_rows.COUNTRY, request.country))
    named = [(shop.scope(kind, name, now_ms), name) for kind, name in scopes]
    return [*named, (shop.popular, WHOLE_SHOP[context.lang])]


def _add_scope(
    context: RequestContext, found: ScopeItems, name: str, order: npt.NDArray[np.int64], by_trend: bool = False
) -> None:
    if not len(order):
        return
    trend, scores = found.trending[order], (found.trend if by_trend else found.weight)[order]
    context.pool.add(
        found.hashes[order], scores,
        uniform("popular", lambda k: context.shop.phrases["popular", IN_SCOPE[bool(trend[k])], context.lang, name]),
    )  # fmt: skip


def new_arrivals(context: RequestContext) -> None:
    """The items the shop met last."""
    rows = context.pool.selection.last(4 * context.want)
    context.pool.add(
        context.shop.catalogue.hashes()[rows], np.power(1.0 + np.arange(len(rows)), -1.0),
        uniform("new", lambda k: context.shop.phrases["new", "new_arrival", context.lang, None]), rows=rows,
    )  # fmt: skip


def any_eligible(context: RequestContext) -> None:
    """Fill up from what passes a narrow selection, by what it ever weighed, so that it gives full lists."""
    if not context.pool.selection.narrow:
        return
    found = context.shop.heaviest(context.pool.selection, context.visitor.now_ms)
    said = context.shop.phrases["popular", IN_SCOPE[False], context.lang, WHAT_WAS_ASKED[context.lang]]
    context.pool.add(found.hashes, found.weights, uniform("popular", lambda k: said))


def _affinities(context: RequestContext, items: npt.NDArray[np.uint64]) -> list[RenderedReason]:
    """Return what each item meets of the user's affinities; else taste at large."""
    catalogue, lang = context.shop.catalogue, context.lang
    at_large, rows = context.shop.phrases["vector", "matches_taste", lang, None], catalogue.rows_of(items)
    prices = catalogue.number("price", rows).tolist()
    met = [_affinity(context, row, price) for row, price in zip(rows.tolist(), prices, strict=True)]
    return [
        RenderedReason("vector", reason("matches_affinity", lang, kind=one[0], value=one[1])) if one else at_large
        for one in met
    ]


def _affinity(context: RequestContext, row: int, price: float) -> tuple[str, str] | None:
    """Return which affinity of the user an item meets, and its brand, category or price."""
    catalogue, visitor = context.shop.catalogue, context.visitor
    for kind, value in (("brand", catalogue.brand.get(row)), ("category", catalogue.category.get(row))):
        if value and hash_id(value) & 0xFFFFFFFF in visitor.liked:
            return kind, value
    usual_price = visitor.price_ln
    if usual_price is not None and price > 0 and abs(math.log(price) - usual_price[0]) <= usual_price[1]:
        return "price", f"{price:g}"
    return None


Source = Callable[[RequestContext], None]
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
"""Strategies by what has to be read or computed for the batch before the sources are asked."""
FOR_EVERYBODY = frozenset(
    strategy
    for strategy, sources in SOURCES.items()
    if set(sources) <= {habitual_purchases, next_items, vector_neighbours, popular, any_eligible}
)
"""Strategies that show a visitor of whom nothing is known what is popular."""
