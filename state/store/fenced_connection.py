"""A Redis connection whose every transaction is void once another owner of the lane is at work."""

from typing import Any, NamedTuple

import redis

from state.store.contract import Fenced, Positions, decode_positions, encode_positions
from state.store.row_block import Command, pack

LARGE_PART = 16_384


class Fence(NamedTuple):
    """The values that another owner of the lane would change: its positions, and its redo record if there is one."""

    positions: bytes | None = None
    redo: bytes | None = None


class FencedConnection:
    """Keeps a WATCH on a lane's positions and redo record, whose values it has read *after* the WATCH."""

    def __init__(self, connection: Any, positions_key: bytes = b"", redo_key: bytes = b"") -> None:
        self._connection, self._keys = connection, (positions_key, redo_key)
        self._seen = self._expected = Fence()
        self._watching = False
        self._n_answers = 0

    def watch(self) -> Fence:
        """Watch anew and return what is stored."""
        self._write([pack(("UNWATCH",)), pack(("WATCH", *self._keys)), pack(("MGET", *self._keys))])
        self._seen = Fence(*self._read(3)[-1])
        self._watching = True
        return self._seen

    def unwatch(self) -> None:
        """Read positions and record again before the next transaction."""
        self._watching = False

    def reset(self) -> None:
        """Open a new connection and drop the old one with everything under way."""
        self._watching, self._n_answers = False, 0
        self._connection.disconnect()

    def expect(self, positions: Positions, redo: bytes | None = None) -> None:
        """Make these what every transaction is for; raises Fenced when others are stored."""
        seen = self._seen if self._watching else self.watch()
        none_yet = seen.positions is None and not positions
        self._expected = Fence(None if none_yet else encode_positions(positions), redo)
        if seen != self._expected:
            self._watching = False
            found = decode_positions(seen.positions)
            raise Fenced(
                f"positions in Redis are {found}, not {positions}" if found != positions
                else "another owner's commit is under way"
            )  # fmt: skip

    def send(self, *commands: Command) -> None:
        """Send the commands as one transaction under the watch, and watch again; raises Fenced."""
        if self._seen != self._expected:
            raise Fenced("another owner wrote the lane")
        watch = pack(("EXEC",)) + pack(("WATCH", *self._keys)) + pack(("MGET", *self._keys))
        self._n_answers = len(commands) + 4
        self._write([pack(("MULTI",)), *(part for command in commands for part in command), watch])

    def receive(self) -> None:
        """Wait for the transaction under way, if there is one; raises Fenced when it was void."""
        n_answers, self._n_answers = self._n_answers, 0
        if not n_answers:
            return
        *_, done, _, seen = self._read(n_answers)
        self._seen = Fence(*seen)
        if done is None:
            self._watching = False
            raise Fenced("another owner wrote the lane")
        for answer in done:
            if isinstance(answer, Exception):
                raise answer

    def execute(self, *commands: Command) -> None:
        """Run the commands as one transaction; raises Fenced."""
        self.send(*commands)
        self.receive()

    def run(self, *commands: Command) -> None:
        """Run the commands in order, outside any transaction."""
        self._write([part for command in commands for part in command])
        self._read(len(commands))

    def _write(self, parts: Command) -> None:
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

    def _read(self, n: int) -> list[Any]:
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
