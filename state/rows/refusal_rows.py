"""What a user disliked, sent back or rated low, and has not taken up again since: it does not roll off the history.

    version u8 · n u8 · zeros to 8 · item u64[n], ascending · when refused u32[n], seconds since 1970 · zeros

Little-endian, the length is a multiple of 8, at most MAX_REFUSED items; who refuses nothing has no row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from state.rows.row_codec import decode_rows, pack_rows, unpack_rows

VERSION, HEADER = 1, 8
MAX_REFUSED = 250
MAX_BYTES = (HEADER + 12 * MAX_REFUSED + 7) // 8 * 8

Slots = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class RefusalRows(NamedTuple):
    """Rows by slot; of each, the first `n` places hold an item."""

    n: npt.NDArray[np.uint8]
    item: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint32]


def empty_refusals(n_rows: int) -> RefusalRows:
    """Return `n_rows` rows of zeros."""
    shape = (n_rows, MAX_REFUSED)
    return RefusalRows(np.zeros(n_rows, np.uint8), np.zeros(shape, np.uint64), np.zeros(shape, np.uint32))


@njit_no_refcount()
def _encode(rows: RefusalRows, slots: Slots, out: Bytes, ends: npt.NDArray[np.int64]) -> None:
    at = 0
    u64, u32 = out.view(np.uint64), out.view(np.uint32)
    for k in range(len(slots)):
        s = slots[k]
        n = int(rows.n[s])
        length = (HEADER + 12 * n + 7) // 8 * 8
        out[at : at + length] = 0
        out[at], out[at + 1] = VERSION, n
        for j in range(n):
            u64[at // 8 + 1 + j] = rows.item[s, j]
            u32[(at + HEADER + 8 * n) // 4 + j] = rows.second[s, j]
        at += length
        ends[k] = at


@njit_no_refcount()
def _decode(data: Bytes, starts: npt.NDArray[np.int64], slots: Slots, rows: RefusalRows) -> None:
    u64, u32 = data.view(np.uint64), data.view(np.uint32)
    for k in range(len(slots)):
        at, s = starts[k], slots[k]
        n = int(data[at + 1])
        rows.n[s] = n
        for j in range(n):
            rows.item[s, j] = u64[at // 8 + 1 + j]
            rows.second[s, j] = u32[(at + HEADER + 8 * n) // 4 + j]


def encode_refusals(rows: RefusalRows, slots: Slots) -> list[bytes]:
    """Return the encoded rows of `slots`, in that order."""
    return unpack_rows(pack_rows(_encode, rows, slots, MAX_BYTES))


def decode_refusals(values: Sequence[bytes | None], slots: Slots, rows: RefusalRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(_decode, rows, slots, values, VERSION, "refusal")


def refused_items(value: bytes) -> npt.NDArray[np.uint64]:
    """Return the items of an encoded row, ascending. Raises ValueError for a row of another version."""
    if value[0] != VERSION:
        raise ValueError(f"refusal row has version {value[0]}; this program reads version {VERSION}")
    return np.frombuffer(value, np.uint64, value[1], HEADER)
