"""User rows: history, affinities, rhythm and prices.

Encoded (little-endian; the length is a multiple of 8; 880 bytes at most):

      0 version u8 · 1 n u8 (history events) · 2 zero u16 · 4 seen u32 (history events ever)
      8 last_ms i64         16 first_ms i64        24 price_sum i64     32 price_square i64
     40 price_n u32         44 affinity_epoch i32  48 counts u32[4]
     64 affinity_id u32[2][8]   128 affinity u32[2][8]   192 hours u8[24]   216 days u8[7] · zero u8
    224 item u64[n] · gap_ms u32[n] · kind u8[n] · zeros

History is in time order, oldest first. `gap_ms[k]` is the time since the event
before k (capped at 2³²−1, 49 days), so the times follow from `last_ms`. A kind
byte is `Kind | stars << 5`. Prices are summed as thousandths of ln(price).
Affinities count in 1/256 of an event weight, forward-decayed (8 half-lives an
epoch): [0] categories, [1] brands, by the low 32 bits of the id hash.
`counts` are views and clicks, carts, purchases, searches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from state.row_codec import Packed, decode_rows, pack_rows, unpack_rows

VERSION = 1
MAX_HISTORY = 50
N_AFFINITIES = 8
HEADER = 224
MAX_BYTES = (HEADER + 13 * MAX_HISTORY + 7) // 8 * 8
MAX_GAP_MS = 2**32 - 1
KIND_MASK = 31
STARS_SHIFT = 5


class UserRows(NamedTuple):
    """Columns of N user rows; a slot of zeros is a visitor never seen."""

    n: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.int64]
    last_ms: npt.NDArray[np.int64]
    first_ms: npt.NDArray[np.int64]
    price_sum: npt.NDArray[np.int64]
    price_square: npt.NDArray[np.int64]
    price_n: npt.NDArray[np.int64]
    affinity_epoch: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]  # (N, 4)
    affinity_id: npt.NDArray[np.uint32]  # (N, 2, 8)
    affinity: npt.NDArray[np.uint32]  # (N, 2, 8)
    hours: npt.NDArray[np.uint8]  # (N, 24), UTC
    days: npt.NDArray[np.uint8]  # (N, 7), Monday first
    item: npt.NDArray[np.uint64]  # (N, H)
    gap_ms: npt.NDArray[np.uint32]  # (N, H)
    kind: npt.NDArray[np.uint8]  # (N, H)


def empty_users(n_rows: int) -> UserRows:
    """Return `n_rows` rows of zeros."""
    z = np.zeros
    return UserRows(
        n=z(n_rows, np.uint8),
        seen=z(n_rows, np.int64),
        last_ms=z(n_rows, np.int64),
        first_ms=z(n_rows, np.int64),
        price_sum=z(n_rows, np.int64),
        price_square=z(n_rows, np.int64),
        price_n=z(n_rows, np.int64),
        affinity_epoch=z(n_rows, np.int32),
        counts=z((n_rows, 4), np.int64),
        affinity_id=z((n_rows, 2, N_AFFINITIES), np.uint32),
        affinity=z((n_rows, 2, N_AFFINITIES), np.uint32),
        hours=z((n_rows, 24), np.uint8),
        days=z((n_rows, 7), np.uint8),
        item=z((n_rows, MAX_HISTORY), np.uint64),
        gap_ms=z((n_rows, MAX_HISTORY), np.uint32),
        kind=z((n_rows, MAX_HISTORY), np.uint8),
    )


@numba.njit(cache=True, nogil=True)
def _encode(
    rows: UserRows, slots: npt.NDArray[np.int64], out: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> None:
    u32, u64, i32, i64 = out.view(np.uint32), out.view(np.uint64), out.view(np.int32), out.view(np.int64)
    at = 0
    for k in range(len(slots)):
        s = slots[k]
        n = np.int64(rows.n[s])
        length = (HEADER + 13 * n + 7) // 8 * 8
        out[at : at + length] = 0
        out[at], out[at + 1] = VERSION, n
        w4, w8 = at // 4, at // 8
        u32[w4 + 1] = np.uint32(rows.seen[s])
        i64[w8 + 1], i64[w8 + 2] = rows.last_ms[s], rows.first_ms[s]
        i64[w8 + 3], i64[w8 + 4] = rows.price_sum[s], rows.price_square[s]
        u32[w4 + 10], i32[w4 + 11] = np.uint32(rows.price_n[s]), rows.affinity_epoch[s]
        for j in range(4):
            u32[w4 + 12 + j] = np.uint32(rows.counts[s, j])
        for t in range(2):
            for j in range(N_AFFINITIES):
                u32[w4 + 16 + 8 * t + j] = rows.affinity_id[s, t, j]
                u32[w4 + 32 + 8 * t + j] = rows.affinity[s, t, j]
        for j in range(24):
            out[at + 192 + j] = rows.hours[s, j]
        for j in range(7):
            out[at + 216 + j] = rows.days[s, j]
        for j in range(n):
            u64[w8 + 28 + j] = rows.item[s, j]
        for j in range(n):
            u32[w4 + 56 + 2 * n + j] = rows.gap_ms[s, j]
        for j in range(n):
            out[at + HEADER + 12 * n + j] = rows.kind[s, j]
        at += length
        ends[k] = at


@numba.njit(cache=True)
def _decode(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], rows: UserRows
) -> None:
    u32, u64, i32, i64 = data.view(np.uint32), data.view(np.uint64), data.view(np.int32), data.view(np.int64)
    for k in range(len(slots)):
        at, s = starts[k], slots[k]
        n, w4, w8 = np.int64(data[at + 1]), at // 4, at // 8
        rows.n[s], rows.seen[s] = n, u32[w4 + 1]
        rows.last_ms[s], rows.first_ms[s] = i64[w8 + 1], i64[w8 + 2]
        rows.price_sum[s], rows.price_square[s] = i64[w8 + 3], i64[w8 + 4]
        rows.price_n[s], rows.affinity_epoch[s] = u32[w4 + 10], i32[w4 + 11]
        for j in range(4):
            rows.counts[s, j] = u32[w4 + 12 + j]
        for t in range(2):
            for j in range(N_AFFINITIES):
                rows.affinity_id[s, t, j] = u32[w4 + 16 + 8 * t + j]
                rows.affinity[s, t, j] = u32[w4 + 32 + 8 * t + j]
        for j in range(24):
            rows.hours[s, j] = data[at + 192 + j]
        for j in range(7):
            rows.days[s, j] = data[at + 216 + j]
        for j in range(n):
            rows.item[s, j] = u64[w8 + 28 + j]
            rows.gap_ms[s, j] = u32[w4 + 56 + 2 * n + j]
            rows.kind[s, j] = data[at + HEADER + 12 * n + j]


def pack_users(rows: UserRows, slots: npt.NDArray[np.int64]) -> Packed:
    """Return the encoded rows of `slots`, in that order, one behind the other."""
    return pack_rows(_encode, rows, slots, MAX_BYTES)


def encode_users(rows: UserRows, slots: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the encoded rows of `slots`, in that order."""
    return unpack_rows(pack_users(rows, slots))


def decode_users(values: Sequence[bytes | None], slots: npt.NDArray[np.int64], rows: UserRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(_decode, rows, slots, values, VERSION, "user")
