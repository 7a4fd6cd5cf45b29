"""What a user buys again and again."""

import math

import numpy as np

from serving.candidates.context import RequestContext
from serving.candidates.habits import habits
from serving.candidates.pool import uniform
from serving.rendering.items import RenderedReason
from serving.rendering.reason_cache import ReasonKey
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import DAY_MS, Visitor

USUAL_INTERVAL_DAYS = 30.0
"""Of users who have bought nothing twice."""


def habitual_purchases(context: RequestContext) -> None:
    """On a new visit, what a customer with habits buys again and again."""
    if context.purchases is None or not context.visitor.may_follow_habits:
        return
    shop, rows, i = context.shop, context.purchases, context.i
    if rows.n[i] == 0:
        return
    counts = shop.items.rows["count"][shop.slots_of(rows.item[i, : rows.n[i]], context.visitor.now_ms)]
    items, shares = habits(rows, i, shop.bought, np.maximum(counts, 0).astype(np.float64))
    context.pool.add(
        items, shares, uniform("personalised", lambda k: repurchase_reason(shop, context.visitor, int(items[k])))
    )


def due_repurchases(context: RequestContext) -> None:
    """What the user buys again and again, the one closest to its usual interval first."""
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


def repurchase_reason_key(visitor: Visitor, item: int) -> ReasonKey:
    """Return the phrase for an item the user has had before, with its interval where there is one."""
    days = visitor.purchase_intervals[item][0] if item in visitor.bought else 0.0
    return "repeat", "buy_again", visitor.request.lang, None if days < 1 else f"{days:.0f}"


def repurchase_reason(shop: ServingSnapshot, visitor: Visitor, item: int) -> RenderedReason:
    """Return what is said of an item the user has had before."""
    return shop.phrases[repurchase_reason_key(visitor, item)]
