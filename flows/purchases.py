"""The fold of purchases into what each user bought: a sum over purchases, so their order does not matter.

Only a user with more than MAX_BOUGHT different items loses some: a new one takes the place of the one with the
smallest times · 2^(last day / EVICTION_DAYS).
"""

import math

import numpy as np
import numpy.typing as npt

from flows.row_table import RowTable
from schemas.events import Columns, Kind
from schemas.uncounted import uncounted
from state import keys
from state.purchase_rows import (
    DAY_MS,
    DAY_ZERO,
    MAX_BOUGHT,
    PurchaseRows,
    decode_purchase_totals,
    decode_purchases,
    empty_purchases,
    encode_purchase_totals,
    pack_purchases,
)
from state.row_block import RowBlock
from state.store import Store

EVICTION_DAYS = 60.0
MOST_TIMES = LAST_DAY = 65_535


@uncounted()
def _lightest(rows: PurchaseRows, slot: int) -> int:
    """Return the place of the item that gives way in a full row."""
    gap, least = 0, np.inf
    for j in range(MAX_BOUGHT):
        weight = math.log2(rows.times[slot, j]) + rows.last_day[slot, j] / EVICTION_DAYS
        if weight < least:
            gap = j
            least = weight
    return gap


@uncounted()
def add_purchase(rows: PurchaseRows, slot: int, item: np.uint64, day: int, totals: npt.NDArray[np.int64]) -> None:
    """Count one purchase of an item on a day, also in the lane's totals; items stay ascending."""
    n = np.int64(rows.n[slot])
    items, times, firsts, lasts = rows.item[slot], rows.times[slot], rows.first_day[slot], rows.last_day[slot]
    at = np.int64(np.searchsorted(items[:n], item))
    if at < n and items[at] == item:
        before = firsts[at] < lasts[at]
        times[at] = min(np.int64(times[at]) + 1, MOST_TIMES)
        firsts[at] = min(np.int64(firsts[at]), day)
        lasts[at] = max(np.int64(lasts[at]), day)
        totals[1] += firsts[at] < lasts[at] and not before
        return
    totals[0] += 1
    gap = n
    if n < MAX_BOUGHT:
        rows.n[slot] = n + 1
    else:
        gap = np.int64(_lightest(rows, slot))
        if gap < at:
            at -= np.int64(1)
    step = np.int64(1 if gap < at else -1)
    while gap != at:
        for column in (times, firsts, lasts):
            column[gap] = column[gap + step]
        items[gap] = items[gap + step]
        gap += step
    items[at], times[at], firsts[at], lasts[at] = item, 1, day, day


@uncounted()
def add_purchases(
    rows: PurchaseRows, slots: npt.NDArray[np.int64], items: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    """Count purchases of the users in `slots`, one by one."""
    for k in range(len(slots)):
        day = min(max(ts_ms[k] // DAY_MS - DAY_ZERO, 0), LAST_DAY)
        add_purchase(rows, slots[k], items[k], day, totals)


class PurchaseTable(RowTable):
    """Purchase rows by slot."""

    def __init__(self, capacity: int, store: Store, lane_prefix: bytes) -> None:
        self.rows = empty_purchases(capacity)
        self._prefix = lane_prefix
        self._totals = decode_purchase_totals([])
        super().__init__(
            self.rows,
            store,
            lambda user: keys.purchases(lane_prefix, user),
            lambda values, slots: decode_purchases(values, slots, self.rows),
        )

    def open(self, totals: bytes | None) -> None:
        """Forget all rows and go on from these totals."""
        self.clear()
        self._totals = decode_purchase_totals([totals])

    def fold(self, events: Columns) -> npt.NDArray[np.uint64]:
        """Count the purchases among the events; return who bought, ascending."""
        bought = events[(events["kind"] == Kind.PURCHASE) & (events["item"] != 0)]
        buyers, which = np.unique(bought["user"], return_inverse=True)
        slots = self._cache(buyers)
        add_purchases(self.rows, slots[which], bought["item"].copy(), bought["ts_ms"].copy(), self._totals)
        return buyers

    def forget(self, user: int) -> None:
        """Take a user's purchases out of the totals and the row."""
        (slot,) = self._cache(np.array([user], np.uint64))
        n = self.rows.n[slot]
        self._totals[0] -= n
        self._totals[1] -= np.count_nonzero(self.rows.first_day[slot, :n] < self.rows.last_day[slot, :n])
        self.drop(user)

    def holds(self, users: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Say which of these cached users have purchases."""
        return self.rows.n[self._slots.find(users)] > 0

    def totals(self) -> bytes:
        """Return the totals as they rest."""
        return encode_purchase_totals(self._totals)

    def block(self, buyers: npt.NDArray[np.uint64]) -> RowBlock:
        """Return the encoded rows of cached users."""
        slots = self._slots.find(buyers)
        return RowBlock(keys.purchases_prefix(self._prefix), buyers, *pack_purchases(self.rows, slots))
