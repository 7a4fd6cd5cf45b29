"""Items that are related to those in context: by sessions, by factors, by catalogue attributes."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.top_k import largest_first
from serving.candidates.context import RequestContext
from serving.candidates.pool import shares_of_best, uniform
from serving.rendering.items import RenderedReason
from serving.request.columns import Text
from state.rows.item_rows import PAIR_UNIT

CONTENT_CATEGORY, CONTENT_BRAND, CONTENT_PRICE = 1.0, 0.5, 0.3
"""What sharing a category or brand is worth, and being of the same price beside one of them."""
CONTENT_SIBLING = 0.4
"""What a category below the same one is worth, where too few items share the category or brand itself."""
LEAST_COSINE = 0.25
"""Below it two items are not similar. In a shop of few items the factors are nearly orthogonal (cosines of .05 to .13
among 60 items, at 64 factors); of 9 in 10 items of Online Retail and REES46 the twelve closest are above .38."""


def cooccurring(context: RequestContext) -> None:
    """Add what occurs in the same sessions and baskets as the items in context, or as the latest of the session."""
    seeds = context.seeds()
    rows = context.shop.items.rows
    found: dict[int, float] = {}
    owed: dict[int, tuple[float, int]] = {}
    slots = context.shop.slots_of(np.array(seeds, np.uint64), context.visitor.now_ms)
    for seed, slot in zip(seeds, slots.tolist(), strict=True):
        n = int(rows["n"][slot])
        pairs = rows["weight"][slot, :, :n].sum(axis=0) / PAIR_UNIT
        for item, weight in zip(rows["neighbour"][slot, :n].tolist(), pairs.tolist(), strict=True):
            found[item] = found.get(item, 0.0) + weight
            if weight > owed.get(item, (0.0, 0))[0]:
                owed[item] = (weight, seed)
    ranked = sorted(((item, w) for item, w in found.items() if item not in seeds), key=lambda e: (-e[1], e[0]))
    hashes = np.array([item for item, _ in ranked], np.uint64)
    weights = np.array([weight for _, weight in ranked])

    def say(k: int) -> RenderedReason:
        item, seed = ranked[k][0], owed[ranked[k][0]][1]
        code = "bought_together" if _only_bought(context, item, seed) else "seen_together"
        return context.because("cooccurrence", code, seed)

    context.pool.add(hashes, shares_of_best(weights), uniform("cooccurrence", say))


def _only_bought(context: RequestContext, *items: int) -> bool:
    """Return whether nothing but purchases is known of the items, so that what they share are orders.

    The pairs of a row do not tell orders from other sessions. Where all events of two items are purchases, their
    weight is the same multiple of the number of purchases.
    """
    slots = context.shop.slots_of(np.array(items, np.uint64), context.visitor.now_ms)
    kinds, count = context.shop.items.rows["kinds"][slots], context.shop.items.rows["count"][slots]
    others, bought = kinds[:, :2], kinds[:, 2]
    weight = count[0] * bought[1] == count[1] * bought[0]
    return bool((slots >= 0).all() and not others.any() and (bought > 0).all() and weight)


def similar(context: RequestContext) -> None:
    """Add the items whose factors have the largest cosine with those of an item in context, from LEAST_COSINE."""
    index, seeds = context.shop.index, context.seeds()
    if index is None:
        return
    best: dict[int, tuple[float, int]] = {}
    for seed in seeds:
        for item, cosine in index.similar(seed, context.want + len(seeds) + 1):
            if item not in seeds and cosine > best.get(item, (LEAST_COSINE, 0))[0]:
                best[item] = (min(cosine, 1.0), seed)
    ranked = sorted(best.items(), key=lambda entry: (-entry[1][0], entry[0]))
    context.pool.add(
        np.array([item for item, _ in ranked], np.uint64), np.array([cosine for _, (cosine, _) in ranked]),
        uniform("cooccurrence", lambda k: context.because("vector", "similar_to", ranked[k][1][1])),
    )  # fmt: skip


def content(context: RequestContext) -> None:
    """Add items of the same category, brand and price as the latest ones, whether or not there are events of them."""
    catalogue, seeds = context.shop.catalogue, context.seeds()
    at = catalogue.rows_of(np.array(seeds, np.uint64)) if seeds else np.zeros(0, np.int64)
    known = at[at >= 0]
    texts = (catalogue.text("category"), catalogue.text("brand"))
    passing, same = context.pool.selection.mask, _one_of(texts[0], known) | _one_of(texts[1], known)
    rows = np.flatnonzero(same & passing)
    kin = {row: _siblings(context, row) for row in known.tolist()} if len(rows) < context.want + len(known) else {}
    if kin:
        rows = np.flatnonzero((same | np.isin(texts[0].codes, np.concatenate(list(kin.values())))) & passing)
    rows = rows[~np.isin(rows, known)]
    categories, brands = (text.codes[rows] for text in texts)
    price = catalogue.number("price")
    score, owed = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for rank, row in enumerate(at.tolist()):
        if row < 0:
            continue
        near = np.nan_to_num(np.exp(-np.abs(_ln(price[rows]) - _ln(price[row]))))
        category, brand = (text.codes[row] for text in texts)
        alike = (
            CONTENT_CATEGORY * ((categories == category) & (category != 0))
            + CONTENT_BRAND * ((brands == brand) & (brand != 0))
        )  # fmt: skip
        if row in kin:
            alike += CONTENT_SIBLING * (np.isin(categories, kin[row]) & (categories != category))
        alike = (alike + CONTENT_PRICE * near * (alike > 0)) * math.exp(-rank / 2)
        owed = np.where(alike > score, rank, owed)
        score = np.maximum(score, alike)
    best = largest_first(score, 2 * context.want)
    context.pool.add(
        catalogue.hashes()[rows[best]], score[best] / (CONTENT_CATEGORY + CONTENT_BRAND + CONTENT_PRICE),
        uniform("content", lambda k: context.because("content", "similar_to", seeds[int(owed[best[k]])])),
        rows=rows[best],
    )  # fmt: skip


def _siblings(context: RequestContext, row: int) -> npt.NDArray[np.int64]:
    """Return the codes of the categories below the one that an item's category lies in."""
    column = context.shop.catalogue.category
    codes = np.array([column.code_of(path) for path in context.shop.siblings(column.get(row))], np.int64)
    return codes[codes > 0]


def _ln(price: Any) -> Any:
    return np.log(np.maximum(price, 0.01))


def _one_of(text: Text, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whose text is that of one of some rows; an item without one is like no other."""
    wanted = np.zeros(len(text.words), np.bool_)
    wanted[text.codes[rows]] = True
    wanted[0] = False
    return np.asarray(wanted[text.codes])
