"""The store in Redis, and its commit point.

Each lane has a connection of its own that keeps a WATCH on the lane's positions
key, whose value it has read *after* the WATCH. So every EXEC is guarded: it does
nothing once anybody has written the positions.

    small commit (one command of rows), one round trip:
        MULTI · MSET rows · SET positions · EXEC · WATCH positions · GET positions
    large commit:
        RPUSH redo:chunks:<attempt> command                    <- for every command of <= CHUNK rows
        MULTI · RENAME redo:chunks:<attempt> redo:chunks · SET redo {expected, new} · EXEC   <- the commit point
        MULTI · command · EXEC                                 <- for every command
        MULTI · SET positions · UNLINK redo, redo:chunks · EXEC      <- the seal

The redo record is written in pieces because Redis hands what one command wrote to
its append-only file in one go: a single record of 10 MB keeps all readers waiting.

Two owners A and B of one lane. Rows and redo record are absolute values, so applying
a record twice is harmless. A dies or stops anywhere before the commit point: nothing of its
commit is there (its pieces bear a name of their own and expire). After it: B's start finds a record whose `expected` are the
stored positions, applies it and seals; that write of the positions trips A's WATCH,
so no chunk, seal or later commit of A can execute. A record whose `expected` is not
what is stored is older than the seal and is deleted. If Redis restarts and has lost
its last second, rows and positions went back together, and A's next commit finds
other positions: Fenced.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
import redis

from state import keys
from state.row_block import CHUNK, Command, RowSet, pack
from state.store import Fenced, Positions, Rows, StoreUnavailable, decode_positions, encode_positions

PIECES_EXPIRE_S = 600
TIMEOUT_S = 10.0
LARGE_PART = 16_384


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

    def execute(self, *commands: Command) -> None:
        """Run the commands as one transaction under the watch, and watch again; raises Fenced."""
        watch = pack(("EXEC",)) + pack(("WATCH", self._key)) + pack(("GET", self._key))
        self._send_packed([pack(("MULTI",)), *(part for command in commands for part in command), watch])
        *_, done, _, seen = self._receive(len(commands) + 4)
        self._seen = seen
        if done is None:
            self._watching = False
            raise Fenced("another owner wrote the positions")
        for answer in done:
            if isinstance(answer, Exception):
                raise answer

    def run(self, *commands: Command) -> None:
        """Run the commands in order, outside any transaction."""
        self._send_packed([part for command in commands for part in command])
        self._receive(len(commands))

    def _send(self, *commands: tuple[Any, ...]) -> None:
        self._send_packed([pack(command) for command in commands])

    def _send_packed(self, parts: Command) -> None:
        # Small parts are joined: each one would be a system call and a packet.
        joined: Command = []
        small: list[bytes | memoryview] = []
        for part in parts:
            if len(part) < LARGE_PART:
                small.append(part)
                continue
            joined += [b"".join(small), part]
            small = []
        self._connection.send_packed_command([*joined, b"".join(small)], check_health=False)

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
                expected, new = orjson.loads(record)
                if expected == found:
                    chunks = self._client.lrange(keys.redo_chunks(lane_prefix), 0, -1)
                    self._apply(lane, lane_prefix, new, [[chunk] for chunk in chunks])
                    return dict(new)
                lane.execute(_drop_redo(lane_prefix))
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
            row_set = rows if isinstance(rows, RowSet) else RowSet(rows)
            commands = row_set.commands()
            if len(row_set) <= CHUNK:
                lane.execute(*commands, _set_positions(lane_prefix, new))
            else:
                self._write_redo(lane, lane_prefix, expected, new, commands)
                self._apply(lane, lane_prefix, new, commands)

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
            connection = self._client.connection_pool.get_connection()
            try:
                plain = _Lane(connection, b"")
                for command in (rows if isinstance(rows, RowSet) else RowSet(rows)).commands():
                    plain.run(command)
            except BaseException:
                connection.disconnect()
                raise
            finally:
                self._client.connection_pool.release(connection)

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.forget()
        self._client.close()

    def _write_redo(
        self, lane: _Lane, lane_prefix: bytes, expected: Positions, new: Positions, commands: list[Command]
    ) -> None:
        pieces, chunks = keys.redo_chunks(lane_prefix, secrets.token_hex(8)), keys.redo_chunks(lane_prefix)
        writes: list[Command] = []
        for command in commands:
            # The value is the command itself, ready to be sent again.
            size = sum(len(part) for part in command)
            head = b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%s\r\n$%d\r\n" % (len(pieces), pieces, size)
            writes.append([head, *command, b"\r\n"])
        writes.insert(1, [pack(("EXPIRE", pieces, PIECES_EXPIRE_S))])
        try:
            lane.run(*writes)
        except redis.ResponseError:
            lane.run([pack(("UNLINK", pieces))])
            raise
        lane.execute(
            [pack(("RENAME", pieces, chunks))],
            [pack(("PERSIST", chunks))],
            [pack(("SET", keys.redo(lane_prefix), orjson.dumps([expected, new])))],
        )

    def _apply(self, lane: _Lane, lane_prefix: bytes, new: Positions, commands: list[Command]) -> None:
        for command in commands:
            lane.execute(command)
        lane.execute(_set_positions(lane_prefix, new), _drop_redo(lane_prefix))

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


def _set_positions(lane_prefix: bytes, new: Positions) -> Command:
    return [pack(("SET", keys.positions(lane_prefix), encode_positions(new)))]


def _drop_redo(lane_prefix: bytes) -> Command:
    return [pack(("UNLINK", keys.redo(lane_prefix), keys.redo_chunks(lane_prefix)))]
