"""User rows: history, affinities, rhythm and prices.

Encoded (little-endian; the length is a multiple of 8; 880 bytes at most):

      0 version u8 · 1 n u8 (history events) · 2 zero u16 · 4 seen u32 (history events ever)
      8 last_ms i64         16 first_ms i64        24 price_sum i64     32 price_square i64
     40 price_n u32         44 affinity_epoch i32  48 counts u32[4]
     64 affinity_id u32[2][8]   128 affinity u32[2][8]   192 hours u8[24]   216 days u8[7] · flags u8
    224 item u64[n] · gap_ms u32[n] · kind u8[n] · zeros

History is in time order, oldest first. `gap_ms[k]` is the time since the event
before k (capped at 2³²−1, 49 days), so the times follow from `last_ms`. A kind
byte is `Kind | stars << 5`. Prices are summed as thousandths of ln(price).
Affinities count in 1/256 of an event weight, forward-decayed (8 half-lives an
epoch): [0] categories, [1] brands, by the low 32 bits of the id hash.
`counts` are views and clicks, carts, purchases, searches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import AHEAD, prefetch_row
from state.rows.row_codec import Packed, Words, decode_rows, pack_rows, unpack_rows, words

VERSION = 1
MAX_HISTORY = 50
N_AFFINITIES = 8
HEADER = 224
MAX_BYTES = (HEADER + 13 * MAX_HISTORY + 7) // 8 * 8
MAX_GAP_MS = 2**32 - 1
FLAG_REFUSES = 1
"""The user has a row of refusals (`state.rows.refusal_rows`)."""
KIND_MASK = 31
STARS_SHIFT = 5


USER_DTYPE = np.dtype(
    [
        ("n", np.uint8),
        ("days", np.uint8, 7),  # Monday first
        ("hours", np.uint8, 24),  # UTC
        ("last_ms", np.int64),
        ("first_ms", np.int64),
        ("seen", np.int64),
        ("price_sum", np.int64),
        ("price_square", np.int64),
        ("price_n", np.int64),
        ("counts", np.int64, 4),
        ("affinity_epoch", np.int64),
        ("affinity_id", np.uint32, (2, N_AFFINITIES)),
        ("affinity", np.uint32, (2, N_AFFINITIES)),
        ("item", np.uint64, MAX_HISTORY),
        ("gap_ms", np.uint32, MAX_HISTORY),
        ("kind", np.uint8, MAX_HISTORY),
        ("flags", np.uint8),
        (
            "appended",
            np.uint8,
        ),  # not encoded: history events since the row was last committed (`state.store.row_deltas`)
    ],
    align=True,
)
UserRows = npt.NDArray[np.void]
"""Rows of USER_DTYPE: a user's numbers lie together, in few cache lines and pages; zeros: never seen."""


def empty_users(n_rows: int) -> UserRows:
    """Return `n_rows` rows of zeros."""
    return np.zeros(n_rows, USER_DTYPE)


@njit(nogil=True, inline="always")
def write_history(row: Any, n: Any, out: Words, at: int) -> int:
    """Encode the last `n` events behind a header of zeros at `out.u8[at:]`; return where the row ends."""
    length = (HEADER + 13 * n + 7) // 8 * 8
    out.u8[at : at + length] = 0
    out.u8[at + 1] = n
    w4, w8, first = at // 4, at // 8, np.int64(row.n) - n
    for j in range(n):
        out.u64[w8 + 28 + j] = row.item[first + j]
    for j in range(n):
        out.u32[w4 + 56 + 2 * n + j] = row.gap_ms[first + j]
    for j in range(n):
        out.u8[at + HEADER + 12 * n + j] = row.kind[first + j]
    return at + length  # type: ignore[no-any-return]


@njit(nogil=True, inline="always")
def write_user(row: Any, out: Words, at: int) -> int:
    """Encode a row at `out.u8[at:]`; return where it ends."""
    end = write_history(row, np.int64(row.n), out, at)
    out.u8[at] = VERSION
    w4, w8 = at // 4, at // 8
    out.u32[w4 + 1] = np.uint32(row.seen)
    out.i64[w8 + 1], out.i64[w8 + 2] = row.last_ms, row.first_ms
    out.i64[w8 + 3], out.i64[w8 + 4] = row.price_sum, row.price_square
    out.u32[w4 + 10], out.i32[w4 + 11] = np.uint32(row.price_n), row.affinity_epoch
    for j in range(4):
        out.u32[w4 + 12 + j] = np.uint32(row.counts[j])
    for t in range(2):
        for j in range(N_AFFINITIES):
            out.u32[w4 + 16 + 8 * t + j] = row.affinity_id[t, j]
            out.u32[w4 + 32 + 8 * t + j] = row.affinity[t, j]
    for j in range(24):
        out.u8[at + 192 + j] = row.hours[j]
    for j in range(7):
        out.u8[at + 216 + j] = row.days[j]
    out.u8[at + 223] = row.flags
    return end


@njit_no_refcount(nogil=True)
def _encode(
    rows: UserRows, slots: npt.NDArray[np.int64], out: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> None:
    at, to = 0, words(out)
    for k in range(len(slots)):
        if k + AHEAD < len(slots):
            prefetch_row(rows, slots[k + AHEAD])
        at = write_user(rows[slots[k]], to, at)
        ends[k] = at


@njit_no_refcount()
def _decode(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], rows: UserRows
) -> None:
    u32, u64, i32, i64 = data.view(np.uint32), data.view(np.uint64), data.view(np.int32), data.view(np.int64)
    for k in range(len(slots)):
        at, s = starts[k], slots[k]
        n, w4, w8 = np.int64(data[at + 1]), at // 4, at // 8
        rows[s].n, rows[s].seen = n, u32[w4 + 1]
        rows[s].last_ms, rows[s].first_ms = i64[w8 + 1], i64[w8 + 2]
        rows[s].price_sum, rows[s].price_square = i64[w8 + 3], i64[w8 + 4]
        rows[s].price_n, rows[s].affinity_epoch = u32[w4 + 10], i32[w4 + 11]
        for j in range(4):
            rows[s].counts[j] = u32[w4 + 12 + j]
        for t in range(2):
            for j in range(N_AFFINITIES):
                rows[s].affinity_id[t, j] = u32[w4 + 16 + 8 * t + j]
                rows[s].affinity[t, j] = u32[w4 + 32 + 8 * t + j]
        for j in range(24):
            rows[s].hours[j] = data[at + 192 + j]
        for j in range(7):
            rows[s].days[j] = data[at + 216 + j]
        rows[s].flags = data[at + 223]
        for j in range(n):
            rows[s].item[j] = u64[w8 + 28 + j]
            rows[s].gap_ms[j] = u32[w4 + 56 + 2 * n + j]
            rows[s].kind[j] = data[at + HEADER + 12 * n + j]


def pack_users(rows: UserRows, slots: npt.NDArray[np.int64]) -> Packed:
    """Return the encoded rows of `slots`, in that order, one behind the other."""
    return pack_rows(_encode, rows, slots, MAX_BYTES)


def encode_users(rows: UserRows, slots: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the encoded rows of `slots`, in that order."""
    return unpack_rows(pack_users(rows, slots))


def decode_users(values: Sequence[bytes | None], slots: npt.NDArray[np.int64], rows: UserRows) -> npt.NDArray[np.bool_]:
    """Fill `slots` of `rows` from encoded values; return which were there (a None leaves its slot as it is)."""
    return decode_rows(_decode, rows, slots, values, VERSION, "user")
