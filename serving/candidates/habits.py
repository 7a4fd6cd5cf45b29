"""What a customer who buys the same things again takes first on a new visit: what they bought most and last.

    weight(j) = times bought · 2^(−days since / HALF_LIFE) · (1 + what all buy of it)^POPULARITY

Own frequency is the strongest single signal for the next basket (Hu, He, Gao, Zhang, "Modeling Personalized Item
Frequency Information for Next-basket Recommendation", SIGIR 2020) where things are bought again: groceries, not sofas.
Whether they are, the shop's totals say, and else the customer's own purchases.
"""

import numpy as np
import numpy.typing as npt

from state.rows.purchase_rows import PurchaseRows

HALF_LIFE_DAYS = 120.0
LEAST_PURCHASES = 5
SHOP_OF_HABITS = 0.1
"""Share of what customers bought that they bought on two days or more; above it everybody is taken to have habits."""
POPULARITY = 0.15

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def habits(rows: PurchaseRows, slot: int, totals: npt.NDArray[np.int64], popularity: Floats) -> tuple[Hashes, Floats]:
    """Return (items, their share of the weight), heaviest first, equal ones by id hash.

    `popularity` (n,): of the items of the row, 0 or more. Nothing before LEAST_PURCHASES; nor for who bought no item
    on two days, unless the shop's `totals` (items bought, items bought again) say that customers do.
    """
    n = int(rows.n[slot])
    times, first, last = (column[slot, :n].astype(np.int64) for column in (rows.times, rows.first_day, rows.last_day))
    repurchase_reason = (last > first).any() or totals[1] > SHOP_OF_HABITS * totals[0]
    if times.sum() < LEAST_PURCHASES or not repurchase_reason:
        return np.zeros(0, np.uint64), np.zeros(0)
    weight = times * np.exp2((last - last.max()) / HALF_LIFE_DAYS) * (1 + popularity) ** POPULARITY
    order = np.argsort(-weight, kind="stable")  # the items of a row ascend
    return rows.item[slot, order], weight[order] / weight.sum()
