"""Differences between a row and the one in the store, as the redo record of a large commit holds them.

A difference is an encoded row itself: the whole header and, of a user, only the events
appended to the history; of an item, only the neighbours whose counters changed, in no
order (all three zero: the neighbour is gone). Beside it stands the check of the whole
new row. A stored row with that check is the new one already; any other has to have it
once the difference is applied. So a difference is as harmless to apply twice as the
row, and one that does not fit what is stored is found out. Check 0 marks a row kept
whole: where that is shorter, or what changed is not known.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import AHEAD, prefetch_row
from state.rows.item_rows import HEADER as ITEM_HEADER
from state.rows.item_rows import MANY_GONE, MAX_NEIGHBOURS, ItemRows, write_item, write_pairs
from state.rows.item_rows import MAX_BYTES as MAX_ITEM_BYTES
from state.rows.row_codec import Packed, Words, words
from state.rows.user_rows import HEADER as USER_HEADER
from state.rows.user_rows import MAX_BYTES as MAX_USER_BYTES
from state.rows.user_rows import UserRows, write_history, write_user

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]

USERS, ITEMS = b"U", b"I"
FULL_ROW = np.uint64(0)
NOT_AT_THE_END = 255
"""`appended` of a user row in whose history an event was put elsewhere than at the end."""

PAIRS_DTYPE = np.dtype([("neighbour", np.uint64, MAX_NEIGHBOURS), ("weight", np.uint32, (3, MAX_NEIGHBOURS))])


class Differences(NamedTuple):
    """Differences of rows of one kind (USERS or ITEMS), one behind the other; `checks` as described at the top."""

    kind: bytes
    values: Bytes
    ends: Int64s
    checks: Uint64s


@njit_no_refcount(nogil=True)
def checksum(words: Uint64s, first: int, end: int) -> np.uint64:
    """Return a 64-bit hash, never 0, of `words[first:end]`: four streams of multiply and shift."""
    prime, by = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
    a = b = c = d = prime ^ np.uint64(end - first)
    at = first
    while at + 4 <= end:
        a = (a ^ words[at]) * prime
        b = (b ^ words[at + 1]) * prime
        c = (c ^ words[at + 2]) * prime
        d = (d ^ words[at + 3]) * prime
        a, b, c, d = a ^ (a >> by), b ^ (b >> by), c ^ (c >> by), d ^ (d >> by)
        at += 4
    while at < end:
        a = (a ^ words[at]) * prime
        a ^= a >> by
        at += 1
    for other in (b, c, d):
        a = (a ^ other) * prime
        a ^= a >> by
    return a | np.uint64(1)


@njit(nogil=True, inline="always")
def _copy(source: Uint64s, first: int, end: int, out: Uint64s, at: int) -> int:
    """Copy the bytes `first` to `end`, whole words, to byte `at` of `out`; return where they end there."""
    for j in range((end - first) // 8):
        out[at // 8 + j] = source[first // 8 + j]
    return at + end - first


@njit(nogil=True, inline="always")
def _copy_header(source: Words, first: int, length: int, out: Words, at: int) -> None:
    """Copy a row's header but for its numbers of events or neighbours and the width of counters."""
    n, width = out.u8[at + 1], out.u8[at + 2]
    _copy(source.u64, first, first + length, out.u64, at)
    out.u8[at + 1], out.u8[at + 2] = n, width


@njit_no_refcount(nogil=True)
def _pack_users(
    rows: UserRows, slots: Int64s, whole: Bytes, whole_ends: Int64s, out: Bytes, ends: Int64s, checks: Uint64s
) -> None:
    row_words, words_out, at, to = words(whole), words(out), 0, 0
    for k in range(len(slots)):
        if k + AHEAD < len(slots):
            prefetch_row(rows, slots[k + AHEAD])
        row = rows[slots[k]]
        end = write_user(row, row_words, at)
        if row.appended < row.n:
            checks[k] = checksum(row_words.u64, at // 8, end // 8)
            to_end = write_history(row, np.int64(row.appended), words_out, to)
            _copy_header(row_words, at, USER_HEADER, words_out, to)
        else:
            checks[k] = FULL_ROW
            to_end = _copy(row_words.u64, at, end, words_out.u64, to)
        row.appended = 0
        at = whole_ends[k] = end
        to = ends[k] = to_end


@njit(nogil=True, inline="always")
def _take_changed(row: Any, out: Any) -> int:
    """Write the neighbours that came, changed or went, and mark none any more; return how many, or more than fit."""
    n, n_gone = 0, np.int64(row.n_gone)
    for j in range(np.int64(row.n)):
        if (row.changed >> np.uint64(j)) & np.uint64(1):
            out.neighbour[n] = row.neighbour[j]
            for t in range(3):
                out.weight[t, n] = row.weight[t, j]
            n += 1
    row.changed, row.n_gone = np.uint64(0), np.uint8(0)
    if n_gone == MANY_GONE or n + n_gone > MAX_NEIGHBOURS:
        return MAX_NEIGHBOURS + 1
    for j in range(n_gone):
        out.neighbour[n] = row.gone[j]
        for t in range(3):
            out.weight[t, n] = 0
        n += 1
    return n


@njit_no_refcount(nogil=True)
def _pack_items(
    rows: ItemRows, slots: Int64s, scratch: npt.NDArray[np.void],
    whole: Bytes, whole_ends: Int64s, out: Bytes, ends: Int64s, checks: Uint64s,
) -> None:  # fmt: skip
    row_words, words_out, pairs, at, to = words(whole), words(out), scratch[0], 0, 0
    for k in range(len(slots)):
        if k + AHEAD < len(slots):
            prefetch_row(rows, slots[k + AHEAD])
        row = rows[slots[k]]
        end = write_item(row, row_words, at)
        n = _take_changed(row, pairs)
        if n < row.n:
            checks[k] = checksum(row_words.u64, at // 8, end // 8)
            to_end = write_pairs(pairs, n, words_out, to)
            _copy_header(row_words, at, ITEM_HEADER, words_out, to)
        else:
            checks[k] = FULL_ROW
            to_end = _copy(row_words.u64, at, end, words_out.u64, to)
        at = whole_ends[k] = end
        to = ends[k] = to_end


def pack_changed_users(rows: UserRows, slots: Int64s) -> tuple[Packed, Differences]:
    """Return the encoded rows and how they differ from those last packed here, which have to be in the store."""
    n = len(slots)
    whole, out = np.empty(n * MAX_USER_BYTES, np.uint8), np.empty(n * MAX_USER_BYTES, np.uint8)
    whole_ends, ends, checks = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint64)
    _pack_users(rows, slots, whole, whole_ends, out, ends, checks)
    return (whole, whole_ends), Differences(USERS, out, ends, checks)


def pack_changed_items(rows: ItemRows, slots: Int64s) -> tuple[Packed, Differences]:
    """Return the same for items."""
    n = len(slots)
    whole, out = np.empty(n * MAX_ITEM_BYTES, np.uint8), np.empty(n * MAX_ITEM_BYTES, np.uint8)
    whole_ends, ends, checks = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint64)
    _pack_items(rows, slots, np.empty(1, PAIRS_DTYPE), whole, whole_ends, out, ends, checks)
    return (whole, whole_ends), Differences(ITEMS, out, ends, checks)
