"""The fold of purchases into what each user bought: a sum over purchases, so their order does not matter.

Only a user with more than MAX_BOUGHT different items loses some: a new one takes the place of the one with the
smallest times · 2^(last day / EVICTION_DAYS), which the row of older purchases then names.
"""

import math

import numpy as np
import numpy.typing as npt

from flows.fold.encoded_rows import EncodedRows
from flows.fold.row_table import RowTable
from schemas.compiled.njit import njit_no_refcount
from schemas.events import Columns, Kind
from state.rows import keys
from state.rows.purchase_rows import (
    DAY_MS,
    DAY_ZERO,
    MAX_BOUGHT,
    PurchaseRows,
    decode_older,
    decode_purchase_totals,
    decode_purchases,
    empty_purchases,
    encode_older,
    encode_purchase_totals,
    pack_purchases,
)
from state.store.contract import Store
from state.store.row_block import RowBlock

EVICTION_DAYS = 60.0
MOST_TIMES = LAST_DAY = 65_535


@njit_no_refcount()
def _lightest(rows: PurchaseRows, slot: int) -> int:
    """Return the place of the item that gives way in a full row."""
    gap, least = 0, np.inf
    for j in range(MAX_BOUGHT):
        weight = math.log2(rows.times[slot, j]) + rows.last_day[slot, j] / EVICTION_DAYS
        if weight < least:
            gap = j
            least = weight
    return gap


@njit_no_refcount()
def add_purchase(rows: PurchaseRows, slot: int, item: np.uint64, day: int, totals: npt.NDArray[np.int64]) -> np.uint64:
    """Count one purchase of an item on a day, also in the lane's totals; items stay ascending.

    Returns the item that gave way, 0 if none did.
    """
    n = np.int64(rows.n[slot])
    items, times, firsts, lasts = rows.item[slot], rows.times[slot], rows.first_day[slot], rows.last_day[slot]
    at = np.int64(np.searchsorted(items[:n], item))
    if at < n and items[at] == item:
        before = firsts[at] < lasts[at]
        times[at] = min(np.int64(times[at]) + 1, MOST_TIMES)
        firsts[at] = min(np.int64(firsts[at]), day)
        lasts[at] = max(np.int64(lasts[at]), day)
        totals[1] += firsts[at] < lasts[at] and not before
        return np.uint64(0)
    totals[0] += 1
    gap, gone = n, np.uint64(0)
    if n < MAX_BOUGHT:
        rows.n[slot] = n + 1
    else:
        gap = np.int64(_lightest(rows, slot))
        gone = items[gap]
        if gap < at:
            at -= np.int64(1)
    step = np.int64(1 if gap < at else -1)
    while gap != at:
        for column in (times, firsts, lasts):
            column[gap] = column[gap + step]
        items[gap] = items[gap + step]
        gap += step
    items[at], times[at], firsts[at], lasts[at] = item, 1, day, day
    return gone


@njit_no_refcount()
def add_purchases(
    rows: PurchaseRows, slots: npt.NDArray[np.int64], items: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64], gone: npt.NDArray[np.uint64],
) -> None:  # fmt: skip
    """Count purchases of the users in `slots`, one by one; `gone` gets the item that gave way to each, 0 if none."""
    for k in range(len(slots)):
        day = min(max(ts_ms[k] // DAY_MS - DAY_ZERO, 0), LAST_DAY)
        gone[k] = add_purchase(rows, slots[k], items[k], day, totals)


class PurchaseTable(RowTable):
    """Purchase rows by slot."""

    def __init__(self, capacity: int, store: Store, lane_prefix: bytes) -> None:
        self.rows = empty_purchases(capacity)
        self._prefix = lane_prefix
        self._totals = decode_purchase_totals([])
        self._older = EncodedRows(store, lambda user: keys.older_purchases(lane_prefix, user))
        super().__init__(
            self.rows,
            store,
            lambda user: keys.purchases(lane_prefix, user),
            lambda values, slots: decode_purchases(values, slots, self.rows),
        )

    def open(self, totals: bytes | None) -> None:
        """Forget all rows and go on from these totals."""
        self.clear()
        self._older.clear()
        self._totals = decode_purchase_totals([totals])

    def begin_round(self) -> None:
        """Begin a batch: what it loads stays cached until the next one begins."""
        super().begin_round()
        self._older.begin_round()

    def fold(self, events: Columns) -> npt.NDArray[np.uint64]:
        """Count the purchases among the events; return who bought, ascending."""
        bought = events[(events["kind"] == Kind.PURCHASE) & (events["item"] != 0)]
        buyers, which = np.unique(bought["user"], return_inverse=True)
        slots = self._cache(buyers)
        gone = np.zeros(len(bought), np.uint64)
        add_purchases(self.rows, slots[which], bought["item"].copy(), bought["ts_ms"].copy(), self._totals, gone)
        if gone.any():
            self._keep_older(bought["user"][gone != 0].tolist(), gone[gone != 0].tolist())
        return buyers

    def _keep_older(self, users: list[int], items: list[int]) -> None:
        """Add items that gave way, one of each user, to the users' rows of older purchases."""
        self._older.read(users)  # all at once
        for user, item in zip(users, items, strict=True):
            older = decode_older(self._older.read([user])[0]).tolist()
            if item not in older:
                self._older.put(user, encode_older([*older, item]))

    def erase(self, user: int) -> None:
        """Take a user's purchases out of the totals and the row."""
        (slot,) = self._cache(np.array([user], np.uint64))
        n = self.rows.n[slot]
        self._totals[0] -= n
        self._totals[1] -= np.count_nonzero(self.rows.first_day[slot, :n] < self.rows.last_day[slot, :n])
        self.drop(user)
        self._older.put(user, None)

    def write_older(self, rows: dict[bytes, bytes | None]) -> None:
        """Put the rows of older purchases that the batch changed into `rows`."""
        self._older.write(rows)

    def holds(self, users: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return which of these cached users have purchases."""
        return self.rows.n[self._slots.find(users)] > 0

    def totals(self) -> bytes:
        """Return the totals as they rest."""
        return encode_purchase_totals(self._totals)

    def block(self, buyers: npt.NDArray[np.uint64]) -> RowBlock:
        """Return the encoded rows of cached users."""
        slots = self._slots.find(buyers)
        return RowBlock(keys.purchases_prefix(self._prefix), buyers, *pack_purchases(self.rows, slots))
