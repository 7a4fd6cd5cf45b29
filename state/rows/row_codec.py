"""Shared parts of the encoders and decoders of rows: many rows in one kernel call."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

Slots = npt.NDArray[np.int64]
MOST_COUNTED = 2**32 - 1
"""Counters that rest in 32 bits stay there, whatever comes."""


class Words(NamedTuple):
    """The same bytes as numbers of every width; made once, as making a view costs more than writing a field."""

    u8: npt.NDArray[np.uint8]
    u16: npt.NDArray[np.uint16]
    u32: npt.NDArray[np.uint32]
    u64: npt.NDArray[np.uint64]
    i32: npt.NDArray[np.int32]
    i64: npt.NDArray[np.int64]
    f32: npt.NDArray[np.float32]


@njit_no_refcount(nogil=True)
def words(data: npt.NDArray[np.uint8]) -> Words:
    """Return `data`, whose length is a multiple of 8, as numbers."""
    return Words(
        data, data.view(np.uint16), data.view(np.uint32), data.view(np.uint64),
        data.view(np.int32), data.view(np.int64), data.view(np.float32),
    )  # fmt: skip


@njit_no_refcount()
def counted(count: int, by: int) -> int:
    """Return a counter that rests in 32 bits, `by` further, at most MOST_COUNTED.

    >>> counted(3, 1), counted(MOST_COUNTED, 1) == MOST_COUNTED
    (4, True)
    """
    return min(count + by, MOST_COUNTED)


Packed = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Encoded rows one behind the other, and where each one ends."""


def pack_rows(kernel: Callable[..., None], rows: Any, slots: Slots, max_bytes: int) -> Packed:
    """Return the encoded rows of `slots`, in that order; `kernel(rows, slots, out, ends)` writes them."""
    out = np.empty(len(slots) * max_bytes, np.uint8)
    ends = np.empty(len(slots), np.int64)
    kernel(rows, slots, out, ends)
    return out, ends


def unpack_rows(packed: Packed) -> list[bytes]:
    """Return the rows as one bytes object each."""
    out, ends = packed
    return [bytes(out.data[a:b]) for a, b in pairwise([0, *ends.tolist()])]


def decode_rows(
    kernel: Callable[..., None], rows: Any, slots: Slots, values: Sequence[bytes | None], version: int, name: str
) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` by `kernel(data, starts, slots, rows)`; return which values were there.

    A None leaves its slot as it is. Raises ValueError for a row of another version.
    """
    there = np.array([value is not None for value in values], bool)
    present = [value for value in values if value is not None]
    for value in present:
        if value[0] != version:
            raise ValueError(f"{name} row has version {value[0]}; this program reads version {version}")
    if present:
        starts = np.fromiter(accumulate(map(len, present), initial=0), np.int64, len(present))
        kernel(np.frombuffer(b"".join(present), np.uint8), starts, slots[there], rows)
    return there
