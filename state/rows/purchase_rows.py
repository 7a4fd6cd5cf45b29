"""Purchases of a user by item: how often, first and last day. They outlast the history in the user's row.

    version u8 · n u8 · zeros to 8 · item u64[n], ascending · times bought u16[n] · first day u16[n] · last day u16[n]

Days are counted from 2000-01-01, UTC. Little-endian, at most MAX_BOUGHT items; who never buys has no row.

What a full row has no room for any more rests, as items alone, in a row of older purchases:

    version u8 · zeros to 8 · item u64[n], those that left the row last behind

At most MAX_OLDER items; only who has bought more than MAX_BOUGHT different ones has such a row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.rows.item_lists import ItemLists, max_bytes, read_lists, write_lists
from state.rows.row_codec import Packed, decode_rows, pack_rows

VERSION = 1
MAX_BOUGHT = 96
MAX_BYTES = max_bytes(MAX_BOUGHT, 6)
MAX_OLDER = 1_000
DAY_MS = 86_400_000
DAY_ZERO = 10_957
"""2000-01-01 in days since 1970-01-01."""

Slots = npt.NDArray[np.int64]


class PurchaseRows(NamedTuple):
    """Rows by slot; of each, the first `n` places hold an item."""

    n: npt.NDArray[np.uint8]
    item: npt.NDArray[np.uint64]
    times: npt.NDArray[np.uint16]
    first_day: npt.NDArray[np.uint16]
    last_day: npt.NDArray[np.uint16]


def empty_purchases(n_rows: int) -> PurchaseRows:
    """Return `n_rows` rows of zeros."""
    z = np.zeros
    days = (z((n_rows, MAX_BOUGHT), np.uint16) for _ in range(3))
    return PurchaseRows(z(n_rows, np.uint8), z((n_rows, MAX_BOUGHT), np.uint64), *days)


def _lists(rows: PurchaseRows) -> ItemLists:
    return ItemLists(VERSION, rows.n, rows.item, (rows.times, rows.first_day, rows.last_day))


def pack_purchases(rows: PurchaseRows, slots: Slots) -> Packed:
    """Return the encoded rows of `slots`, in that order, one behind the other."""
    return pack_rows(write_lists, _lists(rows), slots, MAX_BYTES)


def decode_purchases(values: Sequence[bytes | None], slots: Slots, rows: PurchaseRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(read_lists, _lists(rows), slots, values, VERSION, "purchase")


def encode_purchase_totals(totals: npt.NDArray[np.int64]) -> bytes:
    """Return a lane's totals, two int64: items by user, and those of them bought on two days or more."""
    return totals.astype("<i8").tobytes()


def decode_purchase_totals(values: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """Return the sum of the lanes' totals."""
    there = [np.frombuffer(value, "<i8").astype(np.int64) for value in values if value is not None]
    return np.asarray(np.sum([np.zeros(2, np.int64), *there], axis=0), np.int64)


def encode_older(items: Sequence[int]) -> bytes:
    """Return a row of older purchases of the last MAX_OLDER of these items."""
    return np.array([VERSION, *items[-MAX_OLDER:]], "<u8").tobytes()


def decode_older(value: bytes | None) -> npt.NDArray[np.uint64]:
    """Return the items of a row of older purchases, none without a row. Raises ValueError for another version."""
    if value is None:
        return np.zeros(0, np.uint64)
    if value[0] != VERSION:
        raise ValueError(f"row of older purchases has version {value[0]}; this program reads version {VERSION}")
    return np.frombuffer(value, "<u8")[1:]
