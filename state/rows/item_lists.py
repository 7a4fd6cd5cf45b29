"""Rows that are a list of items with one or more numbers each: what a user bought, what a user refuses.

version u8 · n u8 · zeros to 8 · item u64[n] · each column, u16[n] or u32[n] · zeros to a multiple of 8
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

HEADER = 8

Slots = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class ItemLists(NamedTuple):
    """Rows by slot; of each, the first `n` places hold an item. All columns are of one type."""

    version: int
    n: npt.NDArray[np.uint8]
    item: npt.NDArray[np.uint64]
    columns: tuple[npt.NDArray[np.unsignedinteger], ...]  # type: ignore[type-arg]


def max_bytes(n_items: int, bytes_each: int) -> int:
    """Return the length of a row of `n_items`, whose columns take `bytes_each`.

    >>> max_bytes(250, 4)
    3008
    """
    return (HEADER + (8 + bytes_each) * n_items + 7) // 8 * 8


@njit_no_refcount()
def write_lists(rows: ItemLists, slots: Slots, out: Bytes, ends: npt.NDArray[np.int64]) -> None:
    """Write the rows of `slots` to `out`, one behind the other, and where each one ends (`row_codec.pack_rows`)."""
    at, width = 0, rows.columns[0].itemsize
    u64, numbers = out.view(np.uint64), out.view(rows.columns[0].dtype)
    for k in range(len(slots)):
        s = slots[k]
        n = int(rows.n[s])
        length = (HEADER + (8 + width * len(rows.columns)) * n + 7) // 8 * 8
        out[at : at + length] = 0
        out[at], out[at + 1] = rows.version, n
        for j in range(n):
            u64[at // 8 + 1 + j] = rows.item[s, j]
        to = (at + HEADER + 8 * n) // width
        for column in rows.columns:
            for j in range(n):
                numbers[to + j] = column[s, j]
            to += n
        at += length
        ends[k] = at


@njit_no_refcount()
def read_lists(data: Bytes, starts: npt.NDArray[np.int64], slots: Slots, rows: ItemLists) -> None:
    """Fill `slots` of `rows` from the encoded rows that begin at `starts` (`row_codec.decode_rows`)."""
    width = rows.columns[0].itemsize
    u64, numbers = data.view(np.uint64), data.view(rows.columns[0].dtype)
    for k in range(len(slots)):
        at, s = starts[k], slots[k]
        n = int(data[at + 1])
        rows.n[s] = n
        for j in range(n):
            rows.item[s, j] = u64[at // 8 + 1 + j]
        source = (at + HEADER + 8 * n) // width
        for column in rows.columns:
            for j in range(n):
                column[s, j] = numbers[source + j]
            source += n
