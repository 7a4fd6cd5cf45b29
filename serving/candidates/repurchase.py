"""Repurchases: on a new visit what the user bought most and last, else what is due.

    weight(j) = times bought · 2^(−days since / HALF_LIFE) · (1 + popularity)^POPULARITY

Own frequency is the strongest single signal for the next basket (Hu, He, Gao, Zhang, "Modeling Personalized Item
Frequency Information for Next-basket Recommendation", SIGIR 2020) where things are bought again: groceries, not sofas.
The shop's totals decide whether they are, or else the customer's own purchases.
"""

import math

import numpy as np
import numpy.typing as npt

from serving.candidates.context import RequestContext
from serving.candidates.pool import uniform
from serving.rendering.items import RenderedReason
from serving.rendering.reason_cache import ReasonKey
from serving.snapshot.evidence import BOUGHT, CARTED, INTERESTED, UNSEEN, VIEWED
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import DAY_MS, Visitor
from state.rows.purchase_rows import PurchaseRows

HALF_LIFE_DAYS = 120.0
LEAST_PURCHASES = 5
SHOP_OF_HABITS = 0.1
"""Share of what customers bought that they bought on two days or more; above it everybody is taken to have habits."""
POPULARITY = 0.15
REPEATED = {
    UNSEEN: "seen_before", VIEWED: "seen_before", INTERESTED: "seen_before", CARTED: "carted_before",
    BOUGHT: "bought_before",
}  # fmt: skip
"""Code of the reason for an item that comes again, by `evidence_of`."""
USUAL_INTERVAL_DAYS = 30.0
"""Of users who have bought nothing twice."""

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def habitual_purchases(context: RequestContext) -> None:
    """Add, on a new visit, what a customer with habits buys repeatedly (`habits`)."""
    if context.purchases is None or not context.visitor.may_follow_habits:
        return
    shop, rows, i = context.shop, context.purchases, context.i
    if rows.n[i] == 0:
        return
    counts = shop.items.rows["count"][shop.slots_of(rows.item[i, : rows.n[i]], context.visitor.now_ms)]
    only_regular = context.visitor.plan.repeat == "new_first"
    items, shares = habits(rows, i, shop.bought, np.maximum(counts, 0).astype(np.float64), only_regular)
    context.pool.add(
        items, shares, uniform("personalised", lambda k: repurchase_reason(shop, context.visitor, int(items[k])))
    )


def habits(
    rows: PurchaseRows, slot: int, totals: npt.NDArray[np.int64], popularity: Floats, only_regular: bool = False
) -> tuple[Hashes, Floats]:
    """Return (items, their share of the weight), largest first, equal ones by id hash.

    `popularity` (n,): of the items of the row, 0 or more. Nothing before LEAST_PURCHASES; nor for who bought no item
    on two days, unless the shop's `totals` (items bought, items bought again) say that customers do. `only_regular`:
    leave out what the user bought on one day only.
    """
    n = int(rows.n[slot])
    times, first, last = (column[slot, :n].astype(np.int64) for column in (rows.times, rows.first_day, rows.last_day))
    has_habits = (last > first).any() or totals[1] > SHOP_OF_HABITS * totals[0]
    if times.sum() < LEAST_PURCHASES or not has_habits:
        return np.zeros(0, np.uint64), np.zeros(0)
    weight = times * np.exp2((last - last.max()) / HALF_LIFE_DAYS) * (1 + popularity) ** POPULARITY
    order = np.argsort(-weight, kind="stable")  # the items of a row ascend
    if only_regular:
        order = order[last[order] > first[order]]
    return rows.item[slot, order], weight[order] / weight.sum()


def due_repurchases(context: RequestContext) -> None:
    """Add what the user bought before; first what is closest to the interval at which the user usually buys it."""
    visitor = context.visitor
    intervals = visitor.purchase_intervals
    typical = float(np.median([days for days, _ in intervals.values() if days] or [USUAL_INTERVAL_DAYS]))
    scored = []
    for item, (days, last_ms) in intervals.items():
        elapsed = max((visitor.now_ms - last_ms) / DAY_MS, 1e-3)
        scored.append((math.exp(-abs(math.log(elapsed / (days or typical)))) * (1.0 if days else 0.5), item))
    scored.sort(key=lambda entry: (-entry[0], entry[1]))
    context.pool.add(
        np.array([item for _, item in scored], np.uint64), np.array([score for score, _ in scored]),
        uniform("personalised", lambda k: repurchase_reason(context.shop, visitor, scored[k][1])),
    )  # fmt: skip


def repeat_reason_key(visitor: Visitor, item: int) -> ReasonKey:
    """Return the key of the reason for an item the user has had before, by the strongest thing known about it."""
    days, _ = visitor.purchase_intervals.get(item, (0.0, 0))
    if days >= 1:
        return "repeat", "buy_again", visitor.request.lang, f"{days:.0f}"
    return "repeat", REPEATED[visitor.evidence(item)], visitor.request.lang, None


def repurchase_reason(shop: ServingSnapshot, visitor: Visitor, item: int) -> RenderedReason:
    """Return the reason for an item that the user bought, perhaps before the history begins."""
    key = repeat_reason_key(visitor, item)
    return shop.reasons[key if key[1] == "buy_again" else ("repeat", "bought_before", visitor.request.lang, None)]
