"""The pieces of a redo record: commands ready to be sent again, or differences of rows (`state.store.row_deltas`).

A piece of differences, little-endian (the other pieces begin with `*`):

    kind (U or I) · space · n · space · key prefix · line feed
    row hash u64[n] · check u64[n] · length u32[n] · differences, one behind the other
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from state.rows.item_rows import MAX_NEIGHBOURS, ItemRows, decode_items, empty_items, encode_items, shift
from state.rows.user_rows import MAX_HISTORY, UserRows, decode_users, empty_users, encode_users
from state.store.row_block import Command, RowBlock, RowSet
from state.store.row_deltas import FULL_ROW, ITEMS, USERS, Differences, checksum

ROWS_A_PIECE = 600
"""About 150 kB: Redis hands a command to its append-only file in one go, and readers wait meanwhile."""
REPAIR = "`headrace replay` builds the rows anew from the log"


class RowsDoNotFit(ValueError):
    """The rows in the store are not those that the commit to be finished was made from."""


def redo_pieces(rows: RowSet) -> Iterator[Command]:
    """Yield the pieces, each in parts to be joined, of the record that brings the rows about."""
    for block in rows.blocks:
        yield from block.commands() if block.differences is None else _pieces(block, block.differences)
    yield from rows.single_commands()


def _pieces(block: RowBlock, differences: Differences) -> Iterator[Command]:
    kind, values, ends, checks = differences
    starts = np.concatenate(([0], ends))
    for first in range(0, len(ends), ROWS_A_PIECE):
        part = slice(first, first + ROWS_A_PIECE)
        n = len(ends[part])
        lengths = np.diff(starts[first : first + n + 1]).astype(np.uint32)
        head = b"%s %d %s\n" % (kind, n, block.prefix)
        columns = (block.hashes[part], checks[part], lengths)
        yield [head, *(column.tobytes() for column in columns), values.data[starts[first] : starts[first + n]]]


def commands_of(piece: bytes | None, read: Callable[[Sequence[bytes]], list[bytes | None]]) -> Iterable[Command]:
    """Return the commands that apply a piece; `read` returns the stored rows.

    Raises RowsDoNotFit.
    """
    if piece is None:
        raise RowsDoNotFit(f"a piece of the commit that is to be finished is gone from Redis. {REPAIR}")
    if piece.startswith(b"*"):
        return [[piece]]
    head, _, body = piece.partition(b"\n")
    kind, count, prefix = head.split(b" ", 2)
    n = int(count)
    hashes, checks = np.frombuffer(body, np.uint64, n), np.frombuffer(body, np.uint64, n, 8 * n)
    ends = np.cumsum(np.frombuffer(body, np.uint32, n, 16 * n), dtype=np.int64)
    first = 20 * n
    values = [body[first + a : first + b] for a, b in pairwise([0, *ends.tolist()])]
    stored = read([b"%s%016x" % (prefix, row) for row in hashes.tolist()])
    rows = _rows(KINDS[kind], stored, values, checks, prefix)
    packed = np.frombuffer(b"".join(rows), np.uint8)
    return RowBlock(prefix, hashes, packed, np.cumsum([len(row) for row in rows], dtype=np.int64)).commands()


class _Kind(NamedTuple):
    empty: Callable[[int], Any]
    decode: Callable[..., object]
    encode: Callable[..., list[bytes]]
    join: Callable[[Any, Any], None]


def _rows(
    kind: _Kind, stored: list[bytes | None], values: list[bytes], checks: npt.NDArray[np.uint64], prefix: bytes
) -> list[bytes]:
    slots = np.arange(len(values))
    before, rows = kind.empty(len(values)), kind.empty(len(values))
    kind.decode(stored, slots, before)
    kind.decode(values, slots, rows)
    kind.join(before, rows)
    found = []
    for old, value, check, joined in zip(stored, values, checks, kind.encode(rows, slots), strict=True):
        if check == FULL_ROW:
            found.append(value)
        elif old is not None and _check(old) == check:
            found.append(old)
        elif _check(joined) == check:
            found.append(joined)
        else:
            raise RowsDoNotFit(
                f"a row at {prefix.decode()} is not the one a commit was made from that is to be finished: Redis was "
                f"changed by something else than the flow. {REPAIR}"
            )
    return found


def _check(row: bytes) -> int:
    return int(checksum(np.frombuffer(row, np.uint64), 0, len(row) // 8))


@njit_no_refcount()
def _join_users(before: UserRows, rows: UserRows) -> None:
    for i in range(len(rows)):
        new = np.int64(rows[i].n)
        kept = min(np.int64(before[i].n), MAX_HISTORY - new)
        lost = np.int64(before[i].n) - kept
        for j in range(new - 1, -1, -1):
            rows[i].item[kept + j] = rows[i].item[j]
            rows[i].gap_ms[kept + j] = rows[i].gap_ms[j]
            rows[i].kind[kept + j] = rows[i].kind[j]
        for j in range(kept):
            rows[i].item[j] = before[i].item[lost + j]
            rows[i].gap_ms[j] = before[i].gap_ms[lost + j]
            rows[i].kind[j] = before[i].kind[lost + j]
        rows[i].n = kept + new


@njit_no_refcount()
def _set_pair(row: Any, neighbour: np.uint64, adj: np.uint32, far: np.uint32, bwd: np.uint32) -> None:
    """Give a neighbour these counters, its place among the others if it has none; take it out if all are zero."""
    n: Any = np.int64(row.n)
    at = 0
    while at < n and row.neighbour[at] < neighbour:
        at += 1
    there, gone = at < n and row.neighbour[at] == neighbour, adj == 0 and far == 0 and bwd == 0
    if gone and there:
        shift(row.neighbour, at, n - 1)
        for t in range(3):
            shift(row.weight[t], at, n - 1)
        row.n = n - 1
    if not gone and not there and n < MAX_NEIGHBOURS:
        shift(row.neighbour, n, at)
        for t in range(3):
            shift(row.weight[t], n, at)
        row.neighbour[at] = neighbour
        row.n = n + 1
    if not gone and at < MAX_NEIGHBOURS:
        row.weight[0, at], row.weight[1, at], row.weight[2, at] = adj, far, bwd


@njit()
def _join_items(before: ItemRows, rows: ItemRows) -> None:
    for i in range(len(rows)):
        row, n_new = rows[i], np.int64(rows[i].n)
        new_neighbour, new_weight = row.neighbour.copy(), row.weight.copy()
        row.neighbour[:] = before[i].neighbour
        row.weight[:] = before[i].weight
        row.n = before[i].n
        for gone in (True, False):  # first make room
            for j in range(n_new):
                adj, far, bwd = new_weight[0, j], new_weight[1, j], new_weight[2, j]
                if gone == (adj == 0 and far == 0 and bwd == 0):
                    _set_pair(row, new_neighbour[j], adj, far, bwd)


KINDS = {
    USERS: _Kind(empty_users, decode_users, encode_users, _join_users),
    ITEMS: _Kind(empty_items, decode_items, encode_items, _join_items),
}
