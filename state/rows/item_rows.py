"""Item rows: neighbours with direction, repeats, support and popularity.

Encoded (little-endian; the length is a multiple of 8):

      0 version u8 · 1 n u8 (neighbours) · 2 width u8 (bytes of a counter: 2 or 4) · 3 flags u8
      4 price f32            8 first_ms i64         16 category u64      24 brand u64
     32 total i64[3]        56 support u32          60 repeat u32[4]     76 kinds u32[3]
     88 count i64           96 pop_epoch i32[2]    104 pop i64[2][2]
    136 neighbour u64[n], ascending · adj, far, bwd: each u16[n] or u32[n] · zeros

Counters of pairs are in hundredths (PAIR_UNIT): a pair at recency rank d adds
`round(100 · exp(-d / 1.8))`. `total` sums what was ever added to the three kinds,
evicted or not. `repeat` is (q0, n0, q1, n1). `pop` holds (newest, before) of the
short and the long half-life (`state.rows.decay`); `count` is the undecayed weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import AHEAD, prefetch_row
from state.rows.row_codec import Packed, Words, decode_rows, pack_rows, unpack_rows, words

VERSION = 1
MAX_NEIGHBOURS = 50
MAX_GONE, MANY_GONE = 8, 255
PAIR_UNIT = 100
HEADER = 136
MAX_BYTES = HEADER + MAX_NEIGHBOURS * (8 + 3 * 4)
ADJ, FAR, BWD = 0, 1, 2
FLAG_PRODUCT = 1
"""Category, brand and price come from the catalogue, so events no longer set them."""
FLAG_LISTED = 2
"""The item feed names the item."""


ITEM_DTYPE = np.dtype(
    [
        # What is read of every candidate lies in the first 64 bytes:
        ("n", np.uint8),
        ("flags", np.uint8),
        ("price", np.float32),
        ("support", np.int64),  # sessions the item occurred in
        ("count", np.int64),
        ("pop_epoch", np.int32, 2),
        ("pop", np.int64, (2, 2)),
        ("total", np.int64, 3),
        ("first_ms", np.int64),
        ("category", np.uint64),
        ("brand", np.uint64),
        ("repeat", np.int64, 4),  # q0, n0, q1, n1
        ("kinds", np.int64, 3),  # views and clicks, carts, purchases
        ("neighbour", np.uint64, MAX_NEIGHBOURS),
        ("weight", np.uint32, (3, MAX_NEIGHBOURS)),
        # Not encoded; since the row was last committed (`state.store.row_deltas`):
        ("changed", np.uint64),  # bit j: neighbour j has come or its counters changed
        ("n_gone", np.uint8),
        ("gone", np.uint64, MAX_GONE),  # the first n_gone: neighbours that left and may be back
    ],
    align=True,
)
ItemRows = npt.NDArray[np.void]
"""Rows of ITEM_DTYPE: an item's numbers lie together, in few cache lines and pages; zeros: never seen."""


def empty_items(n_rows: int) -> ItemRows:
    """Return `n_rows` rows of zeros."""
    return np.zeros(n_rows, ITEM_DTYPE)


@njit_no_refcount()
def shift(values: np.ndarray, hole: int, place: int) -> None:
    """Move what lies between `hole` and `place` by one into the hole, so that `place` is free."""
    for j in range(hole, place):
        values[j] = values[j + 1]
    for j in range(hole, place, -1):
        values[j] = values[j - 1]


@njit(nogil=True, inline="always")
def write_pairs(pairs: Any, n: int, out: Words, at: int) -> int:
    """Encode the first `n` neighbours of a record behind a header of zeros at byte `at`; return where the row ends."""
    heaviest = np.uint32(0)
    for t in range(3):
        for j in range(n):
            heaviest = max(heaviest, pairs.weight[t, j])
    width = 2 if heaviest < np.uint32(65536) else 4
    length = (HEADER + n * (8 + 3 * width) + 7) // 8 * 8
    out.u8[at : at + length] = 0
    out.u8[at + 1], out.u8[at + 2] = n, width
    for j in range(n):
        out.u64[at // 8 + 17 + j] = pairs.neighbour[j]
    first = at + HEADER + 8 * n
    for t in range(3):
        for j in range(n):
            if width == 2:
                out.u16[first // 2 + t * n + j] = np.uint16(pairs.weight[t, j])
            else:
                out.u32[first // 4 + t * n + j] = pairs.weight[t, j]
    return at + length


@njit(nogil=True, inline="always")
def write_item(row: Any, out: Words, at: int) -> int:
    """Encode a row at `out.u8[at:]`; return where it ends."""
    end = write_pairs(row, np.int64(row.n), out, at)  # type: ignore[arg-type]
    out.u8[at], out.u8[at + 3] = VERSION, row.flags
    out.f32[at // 4 + 1] = row.price
    w8 = at // 8
    out.i64[w8 + 1] = row.first_ms
    out.u64[w8 + 2], out.u64[w8 + 3] = row.category, row.brand
    for t in range(3):
        out.i64[w8 + 4 + t] = row.total[t]
        out.u32[at // 4 + 19 + t] = np.uint32(row.kinds[t])
    out.u32[at // 4 + 14] = np.uint32(row.support)
    for t in range(4):
        out.u32[at // 4 + 15 + t] = np.uint32(row.repeat[t])
    out.i64[w8 + 11] = row.count
    for t in range(2):
        out.i32[at // 4 + 24 + t] = row.pop_epoch[t]
        out.i64[w8 + 13 + 2 * t] = row.pop[t, 0]
        out.i64[w8 + 14 + 2 * t] = row.pop[t, 1]
    return end


@njit_no_refcount(nogil=True)
def _encode(
    rows: ItemRows, slots: npt.NDArray[np.int64], out: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> None:
    at, to = 0, words(out)
    for k in range(len(slots)):
        if k + AHEAD < len(slots):
            prefetch_row(rows, slots[k + AHEAD])
        at = write_item(rows[slots[k]], to, at)
        ends[k] = at


@njit_no_refcount()
def _decode(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], rows: ItemRows
) -> None:
    u16, u32, u64 = data.view(np.uint16), data.view(np.uint32), data.view(np.uint64)
    i32, i64, f32 = data.view(np.int32), data.view(np.int64), data.view(np.float32)
    for k in range(len(slots)):
        at, s = starts[k], slots[k]
        n, width = np.int64(data[at + 1]), np.int64(data[at + 2])
        rows[s].n, rows[s].flags, rows[s].price = n, data[at + 3], f32[at // 4 + 1]
        w8 = at // 8
        rows[s].first_ms, rows[s].category, rows[s].brand = i64[w8 + 1], u64[w8 + 2], u64[w8 + 3]
        for t in range(3):
            rows[s].total[t] = i64[w8 + 4 + t]
            rows[s].kinds[t] = u32[at // 4 + 19 + t]
        rows[s].support = u32[at // 4 + 14]
        for t in range(4):
            rows[s].repeat[t] = u32[at // 4 + 15 + t]
        rows[s].count = i64[w8 + 11]
        for t in range(2):
            rows[s].pop_epoch[t] = i32[at // 4 + 24 + t]
            rows[s].pop[t, 0], rows[s].pop[t, 1] = i64[w8 + 13 + 2 * t], i64[w8 + 14 + 2 * t]
        first = at + HEADER + 8 * n
        for j in range(n):
            rows[s].neighbour[j] = u64[w8 + 17 + j]
            for t in range(3):
                if width == 2:
                    rows[s].weight[t, j] = u16[first // 2 + t * n + j]
                else:
                    rows[s].weight[t, j] = u32[first // 4 + t * n + j]


def pack_items(rows: ItemRows, slots: npt.NDArray[np.int64]) -> Packed:
    """Return the encoded rows of `slots`, in that order, one behind the other."""
    return pack_rows(_encode, rows, slots, MAX_BYTES)


def encode_items(rows: ItemRows, slots: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the encoded rows of `slots`, in that order."""
    return unpack_rows(pack_items(rows, slots))


def decode_items(values: Sequence[bytes | None], slots: npt.NDArray[np.int64], rows: ItemRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(_decode, rows, slots, values, VERSION, "item")
