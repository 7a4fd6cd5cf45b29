"""Items that are related to those in context: by sessions, by factors, by what the catalogue says."""

import math

import numpy as np

from serving.asking import Asking
from serving.items import Said
from serving.pool import each
from state.item_rows import PAIR_UNIT

CONTENT_CATEGORY, CONTENT_BRAND, CONTENT_PRICE = 1.0, 0.5, 0.3
"""What sharing a category or brand is worth, and being of the same price beside one of them."""


def together(asking: Asking) -> None:
    """What occurs in the same sessions and baskets as the items in context, or as the latest of the session."""
    seeds = asking.seeds()
    rows = asking.shop.items.rows
    found: dict[int, float] = {}
    owed: dict[int, tuple[float, int]] = {}
    slots = asking.shop.slots_of(np.array(seeds, np.uint64), asking.visitor.now_ms)
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

    def say(k: int) -> Said:
        return asking.because("cooccurrence", "bought_together", owed[ranked[k][0]][1])

    asking.pool.add(hashes, weights, each("cooccurrence", say))


def similar(asking: Asking) -> None:
    """The items whose factors point where those of the items in context do."""
    index, seeds = asking.shop.index, asking.seeds()
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
        each("cooccurrence", lambda k: asking.because("vector", "similar_to", ranked[k][1][1])),
    )  # fmt: skip


def content(asking: Asking) -> None:
    """Items of the same category, brand and price as the latest ones: works without a single event of theirs."""
    shop, seeds = asking.shop, asking.seeds()
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
        each("content", lambda k: asking.because("content", "similar_to", seeds[int(owed[best[k]])])),
        rows=best,
    )  # fmt: skip
