"""Where items come from, one function per source, and which sources a strategy asks in which order."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.events import Kind
from schemas.ids import hash_id
from serving.blend import Scored
from serving.candidates import BY_POPULARITY, BY_REPEAT
from serving.pool import Pool, Tier
from serving.reasons import Reason, reason
from serving.shop import ScopeItems, Shop, Vectors
from serving.visitor import DAY_MS, Visitor
from state import lane_rows
from state.item_rows import ADJ, PAIR_UNIT

WHOLE_SHOP = {"en": "the whole shop", "de": "der ganzen Auswahl"}
WHAT_WAS_ASKED = {"en": "what you asked for", "de": "dem, was Sie suchen"}
MAX_COUNTED = 5_000
"""Items that pass a filter whose weights are looked up to fill an answer."""
SEEDS = 5
"""Latest items of the session that similar items are looked for."""
USUAL_INTERVAL_DAYS = 30.0
SOURCE_OF = {BY_REPEAT: "repeat", BY_POPULARITY: "popular", ADJ: "next_item"}
"""Names of what decided in the mixture; everything else is a co-occurrence."""
CONTENT_CATEGORY, CONTENT_BRAND, CONTENT_PRICE = 1.0, 0.5, 0.3

Hashes = npt.NDArray[np.uint64]


class Asking(NamedTuple):
    """One request on its way through the sources."""

    shop: Shop
    visitor: Visitor
    pool: Pool
    scored: Scored | None
    i: int
    """Place of the request in the batch: its row in `scored`."""
    rows: npt.NDArray[np.int64]
    """Catalogue rows of the scored candidates."""
    vectors: Vectors
    want: int
    """How many candidates are enough."""

    @property
    def lang(self) -> str:
        return self.visitor.request.lang

    def because(self, code: str, item: int) -> Reason:
        """Return a reason that names an item."""
        return self.shop.because(code, self.lang, item)


def next_items(asking: Asking) -> None:
    """The calibrated mixture over the session (docs/model.md)."""
    visitor, scored, i = asking.visitor, asking.scored, asking.i
    if scored is None or not len(visitor.session) or scored.n[i] == 0:
        return
    m = int(scored.n[i])
    shop, lang = asking.shop, asking.lang
    latest = list(dict.fromkeys(visitor.session.tolist()[::-1]))
    items, probability = scored.item[i, :m], scored.probability[i, :m]
    order = np.arange(m)
    if (probability[1:] == probability[:-1]).any():  # ties are broken by item id
        order = np.array(sorted(range(m), key=lambda k: (-probability[k], shop.text(int(items[k])))))
    whys, seeds = scored.why[i, order].tolist(), scored.seed[i, order].tolist()

    def source(k: int) -> str:
        return SOURCE_OF.get(whys[k], "cooccurrence")

    def say(k: int) -> Reason:
        why, seed = whys[k], seeds[k]
        if why == BY_REPEAT:
            return _again(asking, int(items[order[k]]))
        if why == BY_POPULARITY or seed >= len(latest):
            return shop.popular_in(int(items[order[k]]) in shop.trending, lang, WHOLE_SHOP[lang])
        return shop.because(
            "because_bought" if latest[seed] in visitor.bought else "because_viewed", lang, latest[seed]
        )

    level = "personalised" if visitor.known else "session"
    ranked = probability[order]
    asking.pool.add(items[order], ranked, Tier(level, source, say), ranked, asking.rows[order])


def taste(asking: Asking) -> None:
    """The nearest item factors to the user's vector."""
    index = asking.shop.index
    vector = asking.vectors.of(asking.i) if index is not None else None
    if index is None or vector is None or not vector.any():
        return
    narrow = asking.pool.selection.hashes if asking.pool.selection.narrow else None
    found = index.search(vector, 2 * asking.want, narrow)
    hashes = np.array([item for item, _ in found], np.uint64)
    scores = np.array([score for _, score in found])
    asking.pool.add(hashes, scores, Tier("personalised", lambda k: "vector", lambda k: _affinity(asking, hashes[k])))


def popular(asking: Asking, scopes: list[tuple[ScopeItems, str]] | None = None) -> None:
    """The heaviest items: of the category asked for, of the visitor's country, of everything."""
    for found, name in _scopes(asking) if scopes is None else scopes:
        _add_scope(asking, found, name, np.arange(len(found.hashes)))


def last_known(asking: Asking) -> None:
    """The list of everything as it was last read: what is left without the store."""
    found = asking.shop.popular
    say = reason("fallback", asking.lang, kind="last_known_popular")
    asking.pool.add(found.hashes, found.weight, Tier("last_known_popular", lambda k: "popular", lambda k: say))


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
        Tier("popular", lambda k: "popular", lambda k: asking.shop.popular_in(bool(trend[k]), asking.lang, name)),
    )  # fmt: skip


def together(asking: Asking) -> None:
    """What occurs in the same sessions and baskets as the items in context, or as the latest of the session."""
    seeds = _seeds(asking)
    rows = asking.shop.items.rows
    found: dict[int, float] = {}
    owed: dict[int, tuple[float, int]] = {}
    slots = asking.shop.slots_of(np.array(seeds, np.uint64), asking.visitor.now_ms)
    for seed, slot in zip(seeds, slots.tolist(), strict=True):
        n = int(rows.n[slot])
        pairs = rows.weight[slot, :, :n].sum(axis=0) / PAIR_UNIT
        for item, weight in zip(rows.neighbour[slot, :n].tolist(), pairs.tolist(), strict=True):
            found[item] = found.get(item, 0.0) + weight
            if weight > owed.get(item, (0.0, 0))[0]:
                owed[item] = (weight, seed)
    ranked = sorted(((item, w) for item, w in found.items() if item not in seeds), key=lambda e: (-e[1], e[0]))
    hashes = np.array([item for item, _ in ranked], np.uint64)
    weights = np.array([weight for _, weight in ranked])

    def say(k: int) -> Reason:
        return asking.because("bought_together", owed[ranked[k][0]][1])

    asking.pool.add(hashes, weights, Tier("cooccurrence", lambda k: "cooccurrence", say))


def similar(asking: Asking) -> None:
    """The items whose factors point where those of the items in context do."""
    index, seeds = asking.shop.index, _seeds(asking)
    if index is None:
        return
    best: dict[int, tuple[float, int]] = {}
    for seed in seeds:
        for item, cosine in index.similar(seed, asking.want + len(seeds) + 1):
            if item not in seeds and cosine > best.get(item, (0.0, 0))[0]:
                best[item] = (cosine, seed)
    ranked = sorted(best.items(), key=lambda entry: (-entry[1][0], entry[0]))
    asking.pool.add(
        np.array([item for item, _ in ranked], np.uint64), np.array([cosine for _, (cosine, _) in ranked]),
        Tier("cooccurrence", lambda k: "vector", lambda k: asking.because("similar_to", ranked[k][1][1])),
    )  # fmt: skip


def content(asking: Asking) -> None:
    """Items of the same category, brand and price as the latest ones: works without a single event of theirs."""
    shop, seeds = asking.shop, _seeds(asking)
    catalogue = shop.catalogue
    rows = catalogue.rows_of(np.array(seeds, np.uint64)) if seeds else np.zeros(0, np.int64)
    everything = np.arange(len(catalogue))
    categories, brands = catalogue.category.codes(everything), catalogue.brand.codes(everything)
    ln_price = np.log(np.maximum(catalogue.number("price"), 0.01))
    score, owed = np.zeros(len(catalogue)), np.zeros(len(catalogue), np.int64)
    for rank, row in enumerate(rows.tolist()):
        if row < 0:
            continue
        near = np.exp(-np.abs(ln_price - ln_price[row]))
        alike = (
            CONTENT_CATEGORY * ((categories == categories[row]) & (categories != 0))
            + CONTENT_BRAND * ((brands == brands[row]) & (brands != 0))
        )  # fmt: skip
        alike = (alike + CONTENT_PRICE * np.nan_to_num(near) * (alike > 0)) * math.exp(-rank / 2)
        owed = np.where(alike > score, rank, owed)
        score = np.maximum(score, alike)
    score[rows[rows >= 0]] = 0
    score *= asking.pool.selection.mask
    best = np.argsort(-score, kind="stable")[: 2 * asking.want]
    best = best[score[best] > 0]
    asking.pool.add(
        catalogue.hashes()[best], score[best],
        Tier("content", lambda k: "content", lambda k: asking.because("similar_to", seeds[int(owed[best[k]])])),
        rows=best,
    )  # fmt: skip


def due(asking: Asking) -> None:
    """What the user buys again and again, the one closest to its usual interval first."""
    visitor = asking.visitor
    intervals = purchase_intervals(visitor)
    usual = float(np.median([days for days, _ in intervals.values() if days])) if any(
        days for days, _ in intervals.values()
    ) else USUAL_INTERVAL_DAYS  # fmt: skip
    scored = []
    for item, (days, last_ms) in intervals.items():
        elapsed = max((visitor.now_ms - last_ms) / DAY_MS, 1e-3)
        scored.append((math.exp(-abs(math.log(elapsed / (days or usual)))) * (1.0 if days else 0.5), item))
    scored.sort(key=lambda entry: (-entry[0], entry[1]))
    asking.pool.add(
        np.array([item for _, item in scored], np.uint64), np.array([score for score, _ in scored]),
        Tier("personalised", lambda k: "repeat", lambda k: _again(asking, scored[k][1])),
    )  # fmt: skip


def purchase_intervals(visitor: Visitor) -> dict[int, tuple[float, int]]:
    """Return per item bought: median days between its purchases (0: bought once), and when it was last bought."""
    times: dict[int, list[int]] = {}
    bought = visitor.kinds == Kind.PURCHASE
    for item, ts_ms in zip(visitor.history_items[bought].tolist(), visitor.times_ms[bought].tolist(), strict=True):
        times.setdefault(item, []).append(ts_ms)
    found = {}
    for item, at in times.items():
        gaps = np.diff(sorted(at)) / DAY_MS
        gaps = gaps[gaps > 0]
        found[item] = (float(np.median(gaps)) if len(gaps) else 0.0, max(at))
    return found


def newest(asking: Asking) -> None:
    """The items the shop met last."""
    rows = np.flatnonzero(asking.pool.selection.mask)[::-1][: 4 * asking.want]
    asking.pool.add(
        asking.shop.catalogue.hashes()[rows], np.power(1.0 + np.arange(len(rows)), -1.0),
        Tier("new", lambda k: "new", lambda k: reason("new_arrival", asking.lang)), rows=rows,
    )  # fmt: skip


def whatever_passes(asking: Asking) -> None:
    """Fill up from what passes a narrow selection, by what it ever weighed, so that it gives full lists."""
    if not asking.pool.selection.narrow:
        return
    hashes = np.sort(asking.pool.selection.hashes)[:MAX_COUNTED]
    weights = asking.shop.items.rows.count[asking.shop.slots_of(hashes, asking.visitor.now_ms)]
    order = np.lexsort((hashes, -weights))
    say = reason("popular_in", asking.lang, scope=WHAT_WAS_ASKED[asking.lang])
    asking.pool.add(hashes[order], weights[order] / 100, Tier("popular", lambda k: "popular", lambda k: say))


def _seeds(asking: Asking) -> list[int]:
    """Return the items in context, else the latest of the session, latest first."""
    visitor = asking.visitor
    items = visitor.context if len(visitor.context) else visitor.session
    return list(dict.fromkeys(items.tolist()[::-1]))[:SEEDS]


def _again(asking: Asking, item: int) -> Reason:
    days = purchase_intervals(asking.visitor).get(item, (0.0, 0))[0]
    if days < 1:
        return reason("buy_again", asking.lang)
    return reason("buy_again", asking.lang, interval_days=f"{days:.0f}")


def _affinity(asking: Asking, item: np.uint64) -> Reason:
    """Return what of the user's affinities an item meets: brand, category or price; else taste at large."""
    catalogue, visitor = asking.shop.catalogue, asking.visitor
    row = catalogue.row_of(int(item))
    for kind, value in (("brand", catalogue.brand.get(row)), ("category", catalogue.category.get(row))):
        if value and hash_id(value) & 0xFFFFFFFF in visitor.liked:
            return reason("matches_affinity", asking.lang, kind=kind, value=value)
    price, usual = catalogue.number("price")[row], visitor.price_ln
    if usual is not None and price > 0 and abs(math.log(price) - usual[0]) <= usual[1]:
        return reason("matches_affinity", asking.lang, kind="price", value=f"{price:g}")
    return reason("matches_taste", asking.lang)


Source = Callable[[Asking], None]
SOURCES: dict[str, tuple[Source, ...]] = {
    "hybrid": (next_items, taste, popular, whatever_passes),
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
WITH_MIXTURE, WITH_VECTOR = frozenset({"hybrid", "session"}), frozenset({"hybrid", "collaborative"})
