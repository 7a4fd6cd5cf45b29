"""What a user buys again and again."""

import math

import numpy as np

from serving.asking import Asking
from serving.pool import Tier
from serving.reasons import Reason, reason
from serving.visitor import DAY_MS

USUAL_INTERVAL_DAYS = 30.0
"""Of users who have bought nothing twice."""


def usual(asking: Asking) -> None:
    """On a new visit, what a customer with habits buys again and again; the answer may repeat what was had."""
    visitor = asking.visitor
    if visitor.running or len(visitor.context) or visitor.plan.repeat != "allow":
        return
    items, shares = visitor.habits
    asking.pool.add(
        items, shares, Tier("personalised", lambda k: "repeat", lambda k: again(asking, int(items[k])))
    )  # fmt: skip


def due(asking: Asking) -> None:
    """What the user buys again and again, the one closest to its usual interval first."""
    visitor = asking.visitor
    intervals = visitor.purchase_intervals
    usual = float(np.median([days for days, _ in intervals.values() if days] or [USUAL_INTERVAL_DAYS]))
    scored = []
    for item, (days, last_ms) in intervals.items():
        elapsed = max((visitor.now_ms - last_ms) / DAY_MS, 1e-3)
        scored.append((math.exp(-abs(math.log(elapsed / (days or usual)))) * (1.0 if days else 0.5), item))
    scored.sort(key=lambda entry: (-entry[0], entry[1]))
    asking.pool.add(
        np.array([item for _, item in scored], np.uint64), np.array([score for score, _ in scored]),
        Tier("personalised", lambda k: "repeat", lambda k: again(asking, scored[k][1])),
    )  # fmt: skip


def again(asking: Asking, item: int) -> Reason:
    """Return the reason of an item the user has had before, with its interval where there is one."""
    days = asking.visitor.purchase_intervals.get(item, (0.0, 0))[0]
    if days < 1:
        return reason("buy_again", asking.lang)
    return reason("buy_again", asking.lang, interval_days=f"{days:.0f}")
