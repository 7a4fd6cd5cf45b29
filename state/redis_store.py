"""The store in Redis, and its commit point.

Each lane has a connection of its own that keeps a WATCH on the lane's positions
key, whose value it has read *after* the WATCH. So every EXEC is guarded: it does
nothing once anybody has written the positions.

    small commit (<= CHUNK rows), one round trip:
        MULTI · MSET rows, positions · DEL removed · EXEC · WATCH positions · GET positions
    large commit:
        MULTI · SET redo {expected, new, rows} · EXEC          <- the commit point
        MULTI · MSET <= CHUNK rows · EXEC                      <- for every chunk
        MULTI · SET positions · DEL redo · EXEC                <- the seal

Two owners A and B of one lane. Rows and redo record are absolute values, so applying
a record twice is harmless. A dies or stops anywhere before the redo: nothing of its
commit is there. After the redo: B's start finds a record whose `expected` are the
stored positions, applies it and seals; that write of the positions trips A's WATCH,
so no chunk, seal or later commit of A can execute. A record whose `expected` is not
what is stored is older than the seal and is deleted. If Redis restarts and has lost
its last second, rows and positions went back together, and A's next commit finds
other positions: Fenced.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis

from state import keys
from state.store import Fenced, Positions, Rows, StoreUnavailable, decode_positions, encode_positions

CHUNK = 500
"""Rows in one command: more would keep other clients waiting for over a millisecond."""
REDO_VERSION = 1
TIMEOUT_S = 10.0

pack: Any = hiredis.pack_command


def encode_redo(expected: Positions, new: Positions, rows: Rows) -> bytes:
    """Return a redo record: `version u8 · zero[3] · crc32 u32 · n u32`, then n times `key u32 · value i32 · bytes`.

    The first two entries are the positions before and after; a value length of -1
    removes the key.
    """
    parts: list[bytes] = []
    entries = [(b"expected", encode_positions(expected)), (b"new", encode_positions(new)), *rows.items()]
    for key, value in entries:
        parts += (struct.pack("<Ii", len(key), -1 if value is None else len(value)), key, value or b"")
    body = b"".join(parts)
    return struct.pack("<B3xII", REDO_VERSION, zlib.crc32(body), len(entries)) + body


def decode_redo(record: bytes) -> tuple[Positions, Positions, dict[bytes, bytes | None]]:
    """Return (expected, new, rows) of a redo record; raises ValueError when it is damaged."""
    version, checksum, n = struct.unpack_from("<B3xII", record)
    if version != REDO_VERSION or zlib.crc32(record[12:]) != checksum:
        raise ValueError(f"redo record of version {version} is damaged or of another program version")
    entries: list[tuple[bytes, bytes | None]] = []
    at = 12
    for _ in range(n):
        key_length, value_length = struct.unpack_from("<Ii", record, at)
        at += 8
        key = record[at : at + key_length]
        at += key_length
        entries.append((key, None if value_length < 0 else record[at : at + value_length]))
        at += max(value_length, 0)
    return decode_positions(entries[0][1]), decode_positions(entries[1][1]), dict(entries[2:])


class _Lane:
    """The guarded connection of one lane."""

    def __init__(self, connection: Any, key: bytes) -> None:
        self._connection, self._key = connection, key
        self._seen: bytes | None = None
        self._watching = False

    def watch(self) -> bytes | None:
        """Watch the positions and return them."""
        self._send(("UNWATCH",), ("WATCH", self._key), ("GET", self._key))
        self._seen = self._receive(3)[-1]
        self._watching = True
        return self._seen

    def forget(self) -> None:
        """After trouble: trust nothing, start over on a fresh connection."""
        self._watching = False
        self._connection.disconnect()

    def expect(self, positions: Positions) -> None:
        """Make sure the watched positions are these; raises Fenced."""
        seen = self._seen if self._watching else self.watch()
        if seen != encode_positions(positions) and not (seen is None and not positions):
            self._watching = False
            raise Fenced(f"positions in Redis are {decode_positions(seen)}, not {positions}")

    def execute(self, *commands: tuple[Any, ...]) -> None:
        """Run the commands as one transaction under the watch, and watch again; raises Fenced."""
        self._send(("MULTI",), *commands, ("EXEC",), ("WATCH", self._key), ("GET", self._key))
        *_, done, _, seen = self._receive(len(commands) + 4)
        self._seen = seen
        if done is None:
            self._watching = False
            raise Fenced("another owner wrote the positions")
        for answer in done:
            if isinstance(answer, Exception):
                raise answer

    def _send(self, *commands: tuple[Any, ...]) -> None:
        self._connection.send_packed_command([pack(command) for command in commands], check_health=False)

    def _receive(self, n: int) -> list[Any]:
        answers: list[Any] = []
        first_error: Exception | None = None
        for _ in range(n):
            try:
                answers.append(self._connection.read_response())
            except redis.ResponseError as error:
                first_error = first_error or error
                answers.append(error)
        if first_error is not None:
            raise first_error
        return answers


class RedisStore:
    """Rows in one Redis. Commits of different lanes may run at the same time; those of one lane may not.

    After StoreUnavailable in a commit its outcome is unknown: read `positions` again.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        self._client: Any = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._lanes: dict[bytes, _Lane] = {}

    def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers and has loaded its data."""
        with self._trouble():
            self._client.ping()

    def positions(self, lane_prefix: bytes) -> Positions:
        """Return the lane's positions; a commit cut short after its commit point is finished first."""
        with self._trouble(lane_prefix):
            lane = self._lane(lane_prefix)
            found = decode_positions(lane.watch())
            record = self._client.get(keys.redo(lane_prefix))
            if record is not None:
                expected, new, rows = decode_redo(record)
                if expected == found:
                    self._apply(lane, lane_prefix, new, rows)
                    return new
                lane.execute(("DEL", keys.redo(lane_prefix)))
            return found

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._trouble():
            if len(keys) <= CHUNK:
                return list(self._client.mget(keys)) if keys else []
            pipeline = self._client.pipeline(transaction=False)
            for i in range(0, len(keys), CHUNK):
                pipeline.mget(keys[i : i + CHUNK])
            return [value for chunk in pipeline.execute() for value in chunk]

    def commit(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: Rows) -> None:
        with self._trouble(lane_prefix):
            lane = self._lane(lane_prefix)
            lane.expect(expected)
            if len(rows) <= CHUNK:
                lane.execute(*_changes({**rows, keys.positions(lane_prefix): encode_positions(new)}))
            else:
                lane.execute(("SET", keys.redo(lane_prefix), encode_redo(expected, new, rows)))
                self._apply(lane, lane_prefix, new, rows)

    def scan(self, key_prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys with this prefix in chunks; a key may come twice while the table grows or shrinks."""
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in key_prefix) + b"*"
        cursor = 0
        while True:
            with self._trouble():
                cursor, found = self._client.scan(cursor, match=pattern, count=1000)
            if found:
                yield list(found)
            if cursor == 0:
                return

    def write(self, rows: Rows) -> None:
        with self._trouble():
            items = list(rows.items())
            for i in range(0, len(items), CHUNK):
                pipeline = self._client.pipeline(transaction=False)
                for command in _changes(dict(items[i : i + CHUNK])):
                    pipeline.execute_command(*command)
                pipeline.execute()

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.forget()
        self._client.close()

    def _apply(self, lane: _Lane, lane_prefix: bytes, new: Positions, rows: Rows) -> None:
        items = list(rows.items())
        for i in range(0, len(items), CHUNK):
            lane.execute(*_changes(dict(items[i : i + CHUNK])))
        lane.execute(("SET", keys.positions(lane_prefix), encode_positions(new)), ("DEL", keys.redo(lane_prefix)))

    def _lane(self, lane_prefix: bytes) -> _Lane:
        if lane_prefix not in self._lanes:
            connection = self._client.connection_pool.get_connection()
            self._lanes[lane_prefix] = _Lane(connection, keys.positions(lane_prefix))
        return self._lanes[lane_prefix]

    def _trouble(self, lane_prefix: bytes | None = None) -> "_Trouble":
        return _Trouble(self, lane_prefix)


class _Trouble:
    """Turns what redis-py raises into StoreUnavailable, and drops the lane's watch."""

    def __init__(self, store: RedisStore, lane_prefix: bytes | None) -> None:
        self._store, self._lane_prefix = store, lane_prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        lane = self._store._lanes.get(self._lane_prefix) if self._lane_prefix else None
        if lane is not None and not isinstance(error, Fenced):
            lane.forget()
        if isinstance(error, redis.RedisError | OSError):
            raise StoreUnavailable(f"Redis at {self._store._name}: {error}") from error


def _changes(rows: Rows) -> list[tuple[Any, ...]]:
    """Return the rows as an MSET and a DEL, whichever are needed."""
    kept = [part for key, value in rows.items() if value is not None for part in (key, value)]
    gone = [key for key, value in rows.items() if value is None]
    commands: list[tuple[Any, ...]] = []
    if kept:
        commands.append(("MSET", *kept))
    if gone:
        commands.append(("DEL", *gone))
    return commands
