"""Refusals of a user: items disliked, returned or rated low, and not taken up since. They outlast the history.

    version u8 · n u8 · zeros to 8 · item u64[n], ascending · when refused u32[n], seconds since 1970 · zeros

Little-endian, the length is a multiple of 8, at most MAX_REFUSED items; who refuses nothing has no row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.rows.item_lists import HEADER, ItemLists, max_bytes, read_lists, write_lists
from state.rows.row_codec import decode_rows, pack_rows, unpack_rows

VERSION = 1
MAX_REFUSED = 250
MAX_BYTES = max_bytes(MAX_REFUSED, 4)

Slots = npt.NDArray[np.int64]


class RefusalRows(NamedTuple):
    """Rows by slot; of each, the first `n` places hold an item."""

    n: npt.NDArray[np.uint8]
    item: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint32]


def empty_refusals(n_rows: int) -> RefusalRows:
    """Return `n_rows` rows of zeros."""
    shape = (n_rows, MAX_REFUSED)
    return RefusalRows(np.zeros(n_rows, np.uint8), np.zeros(shape, np.uint64), np.zeros(shape, np.uint32))


def _lists(rows: RefusalRows) -> ItemLists:
    return ItemLists(VERSION, rows.n, rows.item, (rows.second,))


def encode_refusals(rows: RefusalRows, slots: Slots) -> list[bytes]:
    """Return the encoded rows of `slots`, in that order."""
    return unpack_rows(pack_rows(write_lists, _lists(rows), slots, MAX_BYTES))


def decode_refusals(values: Sequence[bytes | None], slots: Slots, rows: RefusalRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(read_lists, _lists(rows), slots, values, VERSION, "refusal")


def refused_items(value: bytes) -> npt.NDArray[np.uint64]:
    """Return the items of an encoded row, ascending. Raises ValueError for a row of another version."""
    if value[0] != VERSION:
        raise ValueError(f"refusal row has version {value[0]}; this program reads version {VERSION}")
    return np.frombuffer(value, np.uint64, value[1], HEADER)
