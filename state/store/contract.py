"""The interface of a store, and the in-memory store that specifies it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import orjson

from state.rows import keys
from state.store.changes import ChangeFeed, NoChanges

Positions = dict[str, int]
"""Next offset to read, by stream `topic:partition`."""

Rows = Mapping[bytes, bytes | None]
"""Absolute new values by key; None removes the key."""

Reading = Callable[[], list[bytes | None]]
"""A read under way: call it, once, for its values."""


class Fenced(Exception):
    """Another owner moved the lane's positions; this one must reload or stop."""


class StoreUnavailable(Exception):
    """The store cannot be reached or cannot take writes; retry later."""


def encode_positions(positions: Positions) -> bytes:
    """Return the canonical bytes of a position vector.

    >>> encode_positions({"b:0": 2, "a:0": 1})
    b'{"a:0":1,"b:0":2}'
    """
    return orjson.dumps(positions, option=orjson.OPT_SORT_KEYS)


def decode_positions(value: bytes | None) -> Positions:
    """Return the position vector of its bytes, empty for None."""
    return {} if value is None else dict(orjson.loads(value))


class RowReader(Protocol):
    """A store as servers read it.

    A server calls it twice for every batch of requests, from one thread. A caller that must not wait for the network
    uses a `GuardedStore`, which reads with a deadline. Every read may block until the store's timeout and then raises
    StoreUnavailable; the next one may succeed.
    """

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none, in their order. Raises StoreUnavailable."""

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Send for values and do not wait; raises nothing, but calling what is returned may raise StoreUnavailable."""

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        """Return a feed of writes to keys with these prefixes, which the caller connects; it ends with the store."""


class Store(RowReader, Protocol):
    """Rows by key, and per lane the positions they belong to.

    `commit` is the only way a fold changes rows: all rows and the positions, or nothing and `Fenced` when the stored
    positions are not `expected`. A flow commits once a batch, from one thread at a time for each lane, and reads rows
    that its caches lack from another one. Every method may block on the network until the store's timeout and raises
    StoreUnavailable then.
    """

    def positions(self, lane_prefix: bytes) -> Positions:
        """Return the lane's committed positions, after finishing a commit that was cut short."""

    def commit(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: Rows) -> None:
        """Write the rows and make `new` the lane's positions; the next commit sees both or neither.

        Raises Fenced, and then nothing is written; StoreUnavailable, and then the outcome is unknown: call `positions`.
        """

    def refresh(self, lane_prefix: bytes, expected: Positions, rows: Rows) -> None:
        """Write rows that are each true by themselves at these positions: after a crash only some may be there.

        Raises Fenced as `commit` does, and then no further row is written.
        """

    def scan(self, key_prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that start with `key_prefix`, in no order, in chunks; some may be empty."""

    def write(self, rows: Rows) -> None:
        """Set or remove keys that belong to no lane's commit (pointers)."""

    def close(self) -> None:
        """Release connections; nothing else may be called afterwards."""


class MemoryStore:
    """The contract in one dictionary; tests compare other stores with it."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def positions(self, lane_prefix: bytes) -> Positions:
        """Return the lane's committed positions."""
        return decode_positions(self.rows.get(keys.positions(lane_prefix)))

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Return `read`, to be called later."""
        return partial(self.read, keys)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key."""
        return [self.rows.get(key) for key in keys]

    def commit(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: Rows) -> None:
        """Write rows and positions, or raise Fenced."""
        found = self.positions(lane_prefix)
        if found != expected:
            raise Fenced(f"lane {lane_prefix.decode()} is at {found}, not at {expected}")
        self.write({**rows, keys.positions(lane_prefix): encode_positions(new)})

    def refresh(self, lane_prefix: bytes, expected: Positions, rows: Rows) -> None:
        """Write rows, or raise Fenced."""
        self.commit(lane_prefix, expected, expected, rows)

    def scan(self, key_prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that start with `key_prefix`."""
        found = [key for key in self.rows if key.startswith(key_prefix)]
        yield from (found[i : i + 500] for i in range(0, len(found), 500))

    def write(self, rows: Rows) -> None:
        """Set or remove keys."""
        for key, value in rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        """Return a feed that reports nothing."""
        return NoChanges()

    def close(self) -> None:
        """Nothing to release."""
