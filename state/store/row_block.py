"""The rows of one commit, and the Redis commands that write them.

Rows of one kind lie packed in a block, as the encoders leave them; a kernel frames
them as MSET arguments, so that no row becomes a Python object on its way to Redis.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import hiredis
import numpy as np
import numpy.typing as npt

from schemas.compiled.copy_bytes import copy_bytes
from schemas.compiled.njit import njit_no_refcount
from state.store.row_deltas import Differences

CHUNK = 200
"""Rows in one command: more would keep other clients waiting for over a millisecond."""

Bytes = npt.NDArray[np.uint8]
pack: Any = hiredis.pack_command
Command = list[bytes | memoryview]
"""One command in Redis' wire format, in parts to be sent one behind the other."""


class RowBlock(NamedTuple):
    """Rows whose keys are `prefix` and the 16 hex digits of a hash; row i is `values[ends[i-1]:ends[i]]`."""

    prefix: bytes
    hashes: npt.NDArray[np.uint64]
    values: Bytes
    ends: npt.NDArray[np.int64]
    differences: Differences | None = None
    """What a redo record holds in place of the rows."""

    def commands(self) -> Iterator[Command]:
        """Yield the MSET commands, of at most CHUNK rows each, that write the rows."""
        prefix, start = np.frombuffer(self.prefix, np.uint8), 0
        for first in range(0, len(self.hashes), CHUNK):
            hashes, ends = self.hashes[first : first + CHUNK], self.ends[first : first + CHUNK]
            out = np.empty(int(ends[-1]) - start + len(ends) * (len(prefix) + 16 + 40), np.uint8)
            size = _frame(prefix, hashes, self.values, start, ends, out)
            yield [b"*%d\r\n$4\r\nMSET\r\n" % (2 * len(ends) + 1), out.data[:size]]
            start = int(ends[-1])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each row with its key."""
        data = self.values.data
        for row_hash, (a, b) in zip(self.hashes.tolist(), pairwise([0, *self.ends.tolist()]), strict=True):
            yield b"%s%016x" % (self.prefix, row_hash), bytes(data[a:b])


class RowSet(Mapping[bytes, bytes | None]):
    """Absolute rows by key, None for one to remove; a key is in one place only.

    Fill `single` and `blocks` first: what is read as a mapping is fixed by the first look.
    """

    def __init__(self, single: Mapping[bytes, bytes | None] | None = None) -> None:
        self.single: dict[bytes, bytes | None] = dict(single or {})
        self.blocks: list[RowBlock] = []

    def __len__(self) -> int:
        return len(self.single) + sum(len(block.hashes) for block in self.blocks)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._by_key)

    def __getitem__(self, key: bytes) -> bytes | None:
        return self._by_key[key]

    @cached_property
    def _by_key(self) -> dict[bytes, bytes | None]:
        return {**self.single, **{key: value for block in self.blocks for key, value in block.items()}}

    def commands(self) -> Iterator[Command]:
        """Yield the MSET and DEL commands, of at most CHUNK rows each, that bring the rows about.

        Each is made when it is asked for, so that the store works on one while the next is framed.
        """
        for block in self.blocks:
            yield from block.commands()
        yield from self.single_commands()

    def single_commands(self) -> Iterator[Command]:
        """Yield those commands for the rows of `single` alone."""
        kept = [(key, value) for key, value in self.single.items() if value is not None]
        gone = [key for key, value in self.single.items() if value is None]
        for i in range(0, len(kept), CHUNK):
            yield [pack(("MSET", *(part for pair in kept[i : i + CHUNK] for part in pair)))]
        for i in range(0, len(gone), CHUNK):
            yield [pack(("DEL", *gone[i : i + CHUNK]))]


@njit_no_refcount()
def _write_length(out: Bytes, at: int, length: int) -> int:
    """Write `$length` and a line end; return the index behind it."""
    out[at] = ord("$")
    digits = 1
    while length >= 10**digits:
        digits += 1
    for k in range(digits, 0, -1):
        out[at + k] = ord("0") + length % 10
        length //= 10
    return _end_line(out, at + digits + 1)


@njit_no_refcount()
def _end_line(out: Bytes, at: int) -> int:
    out[at], out[at + 1] = 13, 10
    return at + 2


@njit_no_refcount(nogil=True)
def _frame(
    prefix: Bytes, hashes: npt.NDArray[np.uint64], values: Bytes, start: int, ends: npt.NDArray[np.int64], out: Bytes
) -> int:  # fmt: skip
    """Write keys and values of rows, the first of which begins at `values[start]`; return how many bytes."""
    at = 0
    for i in range(len(hashes)):
        at = _write_length(out, at, len(prefix) + 16)
        at = copy_bytes(prefix, 0, len(prefix), out, at)
        for k in range(16):
            digit = np.int64((hashes[i] >> np.uint64(60 - 4 * k)) & np.uint64(15))
            out[at + k] = digit + (48 if digit < 10 else 87)
        at = _end_line(out, at + 16)
        size = ends[i] - start
        at = _write_length(out, at, size)
        at = _end_line(out, copy_bytes(values, start, ends[i], out, at))
        start = ends[i]
    return at
