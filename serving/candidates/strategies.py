"""Where items come from, one function per source, and which sources a strategy asks in which order."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.candidates.context import Asking
from serving.candidates.pool import Tier, each
from serving.candidates.related_items import content, similar, together
from serving.candidates.repurchase import due, usual
from serving.candidates.score_reasons import IN_SCOPE, WHOLE_SHOP, phrase_of
from serving.rendering.items import Said
from serving.request.reasons import reason
from serving.snapshot.snapshot import ScopeItems
from state.rows import lane_rows

WHAT_WAS_ASKED = {"en": "what you asked for", "de": "dem, was Sie suchen"}


def next_items(asking: Asking) -> None:
    """The calibrated mixture over the session (docs/model.md)."""
    visitor, scored, i = asking.visitor, asking.scored, asking.i
    if scored is None or not len(visitor.session) or scored.n[i] == 0:
        return
    shop, m = asking.shop, int(scored.n[i])
    items, probability = scored.item[i, :m], scored.probability[i, :m]
    why, seeds = scored.why[i, :m], scored.seed[i, :m]

    def say(k: int) -> Said:
        return shop.phrases[phrase_of(shop, visitor, int(why[k]), int(seeds[k]), int(items[k]))]

    asking.pool.add(items, probability, each(visitor.level, say), probability, asking.rows)


def taste(asking: Asking) -> None:
    """The nearest item factors to the user's vector."""
    index = asking.shop.index
    vector = asking.vectors.of(asking.i) if index is not None else None
    if index is None or vector is None or not vector.any():
        return
    selection = asking.pool.selection
    hashes, scores = index.search(vector, 2 * asking.want, selection if selection.narrow else None)
    tier = Tier("personalised", lambda places: _affinities(asking, hashes[places]))
    asking.pool.add(hashes, scores.astype(np.float64), tier)


def popular(asking: Asking, scopes: list[tuple[ScopeItems, str]] | None = None) -> None:
    """The heaviest items: of the category asked for, of the visitor's country, of everything."""
    for found, name in _scopes(asking) if scopes is None else scopes:
        _add_scope(asking, found, name, np.arange(len(found.hashes)))


def last_known(asking: Asking) -> None:
    """The list of everything as it was last read: what is left without the store."""
    found = asking.shop.popular
    said = Said("popular", reason("fallback", asking.lang, kind="last_known_popular"))
    asking.pool.add(found.hashes, found.weight, each("last_known_popular", lambda k: said))


def trending(asking: Asking) -> None:
    """The items whose short half-life outruns their long one the most."""
    for found, name in _scopes(asking):
        _add_scope(asking, found, name, np.argsort(-found.trend, kind="stable"), by_trend=True)


def _scopes(asking: Asking) -> list[tuple[ScopeItems, str]]:
    request, shop, now_ms = asking.visitor.request, asking.shop, asking.visitor.now_ms
    scopes = []
    if request.filters is not None and request.filters.category:
        scopes.append((lane_rows.CATEGORY, request.filters.category))
    if request.country:
        scopes.append((lane_rows.COUNTRY, request.country))
    named = [(shop.scope(kind, name, now_ms), name) for kind, name in scopes]
    return [*named, (shop.popular, WHOLE_SHOP[asking.lang])]


def _add_scope(
    asking: Asking, found: ScopeItems, name: str, order: npt.NDArray[np.int64], by_trend: bool = False
) -> None:
    if not len(order):
        return
    trend, scores = found.trending[order], (found.trend if by_trend else found.weight)[order]
    asking.pool.add(
        found.hashes[order], scores,
        each("popular", lambda k: asking.shop.phrases["popular", IN_SCOPE[bool(trend[k])], asking.lang, name]),
    )  # fmt: skip


def newest(asking: Asking) -> None:
    """The items the shop met last."""
    rows = asking.pool.selection.last(4 * asking.want)
    asking.pool.add(
        asking.shop.catalogue.hashes()[rows], np.power(1.0 + np.arange(len(rows)), -1.0),
        each("new", lambda k: asking.shop.phrases["new", "new_arrival", asking.lang, None]), rows=rows,
    )  # fmt: skip


def whatever_passes(asking: Asking) -> None:
    """Fill up from what passes a narrow selection, by what it ever weighed, so that it gives full lists."""
    if not asking.pool.selection.narrow:
        return
    found = asking.shop.heaviest(asking.pool.selection, asking.visitor.now_ms)
    said = asking.shop.phrases["popular", IN_SCOPE[False], asking.lang, WHAT_WAS_ASKED[asking.lang]]
    asking.pool.add(found.hashes, found.weights, each("popular", lambda k: said))


def _affinities(asking: Asking, items: npt.NDArray[np.uint64]) -> list[Said]:
    """Return what each item meets of the user's affinities; else taste at large."""
    catalogue, lang = asking.shop.catalogue, asking.lang
    at_large, rows = asking.shop.phrases["vector", "matches_taste", lang, None], catalogue.rows_of(items)
    prices = catalogue.number("price", rows).tolist()
    met = [_affinity(asking, row, price) for row, price in zip(rows.tolist(), prices, strict=True)]
    return [
        Said("vector", reason("matches_affinity", lang, kind=one[0], value=one[1])) if one else at_large for one in met
    ]


def _affinity(asking: Asking, row: int, price: float) -> tuple[str, str] | None:
    """Return which affinity of the user an item meets, and its brand, category or price."""
    catalogue, visitor = asking.shop.catalogue, asking.visitor
    for kind, value in (("brand", catalogue.brand.get(row)), ("category", catalogue.category.get(row))):
        if value and hash_id(value) & 0xFFFFFFFF in visitor.liked:
            return kind, value
    usual = visitor.price_ln
    if usual is not None and price > 0 and abs(math.log(price) - usual[0]) <= usual[1]:
        return "price", f"{price:g}"
    return None


Source = Callable[[Asking], None]
SOURCES: dict[str, tuple[Source, ...]] = {
    "hybrid": (usual, next_items, taste, popular, whatever_passes),
    "session": (next_items, popular, whatever_passes),
    "collaborative": (taste, popular, whatever_passes),
    "content": (content, popular, whatever_passes),
    "similar": (similar, together, content, popular, whatever_passes),
    "bought_together": (together, similar, popular, whatever_passes),
    "trending": (trending, whatever_passes),
    "popular": (popular, whatever_passes),
    "buy_again": (due, popular, whatever_passes),
    "new": (newest, popular),
}
WITH_MIXTURE, WITH_VECTOR, WITH_HABITS = (
    frozenset(strategy for strategy, sources in SOURCES.items() if source in sources)
    for source in (next_items, taste, usual)
)
"""Strategies by what has to be read or computed for the batch before the sources are asked."""
FOR_EVERYBODY = frozenset(
    strategy
    for strategy, sources in SOURCES.items()
    if set(sources) <= {usual, next_items, taste, popular, whatever_passes}
)
"""Strategies that show a visitor of whom nothing is known what is popular."""
