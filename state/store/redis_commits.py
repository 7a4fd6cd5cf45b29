"""The commit of a lane in Redis, and its commit point.

Each lane has connections of its own that keep a WATCH on the lane's positions and redo record
(`state.store.fenced_connection`). So every EXEC is fenced: it does nothing once anybody has written one of them.

A small commit (one command of rows) is one round trip:
    MULTI · MSET rows · SET positions · EXEC · WATCH positions redo · MGET positions redo

A large commit has four steps:
    1. Write the redo record in pieces (`state.store.redo_pieces`): SET redo:<attempt>:<i> piece EX 600
    2. The commit point: MULTI · PERSIST pieces · SET redo [expected, new, attempt, n] · EXEC
    3. Write the rows, CHUNK at a time: MULTI · MSET rows · EXEC
    4. Seal: MULTI · SET positions · UNLINK redo, pieces · EXEC
An owner that finds a redo record at its start repeats steps 3 and 4. `refresh` is steps 3 and 4 alone.

The record is written in pieces because Redis hands what one command wrote to its append-only file in one go: a single
record of 10 MB keeps all readers waiting.

Two owners A and B of one lane. What a redo record says of a row may be applied twice without harm.
- A dies or stops anywhere before the commit point: nothing of its commit is there. Its pieces bear a name of their own
  and expire.
- After it: B's start finds a record whose `expected` are the stored positions, applies it and seals. That write of the
  positions trips A's WATCH, so no chunk, seal or later commit of A can execute.
- B started before A's commit point: B may have read rows that A has written since, though the positions are still those
  B knows. A's record trips B's WATCH, so what B made of such rows is never written.
- A record whose `expected` is not what is stored is of an earlier version, which did not watch the record. It is
  deleted.
- Redis restarts and has lost its last second: rows and positions went back together, and A's next commit finds other
  positions: Fenced.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson
import redis

from state.rows import keys
from state.store.contract import Fenced, Positions, Rows, decode_positions, encode_positions
from state.store.fenced_connection import Fence, FencedConnection
from state.store.redis_nodes import RedisNodes
from state.store.redo_pieces import RowsDoNotFit, commands_of, redo_pieces
from state.store.row_block import CHUNK, Command, RowSet, pack

EXPIRING = b"\r\n$2\r\nEX\r\n$3\r\n600\r\n"
"""Ends the SET of a piece: pieces of a record that was never completed go after ten minutes."""


class _Lane(NamedTuple):
    """A lane's connections: the first one decides, both apply a large commit by turns so that Redis never waits."""

    main: FencedConnection
    second: FencedConnection

    def reset(self) -> None:
        self.main.reset()
        self.second.reset()


class _Redo(NamedTuple):
    """A redo record that is written: its bytes, and the keys of its pieces."""

    record: bytes
    pieces: Sequence[bytes]


class RedisCommits:
    """Commits of lanes. Those of different lanes may run at the same time, those of one may not.

    Every method raises what redis-py raises; `reset` the lane then.
    """

    def __init__(self, nodes: RedisNodes) -> None:
        self._nodes = nodes
        self._lanes: dict[bytes, _Lane] = {}

    def positions(self, lane_prefix: bytes) -> Positions:
        """Return the lane's positions; a commit cut short after its commit point is finished first."""
        lane = self._lane(lane_prefix)
        seen = lane.main.watch()
        found = decode_positions(seen.positions)
        if seen.redo is not None:
            expected, new, attempt, n_pieces = orjson.loads(seen.redo)
            redo = _Redo(seen.redo, [keys.redo_piece(lane_prefix, attempt, i) for i in range(n_pieces)])
            lane.main.expect(found, redo.record)
            if expected == found:
                self._finish(lane_prefix, seen, new, redo)
                return dict(new)
            lane.main.execute(_drop_redo(lane_prefix, redo.pieces))
        return found

    def commit(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: Rows) -> None:
        """Write rows and positions. Raises Fenced."""
        lane = self._lane(lane_prefix)
        lane.main.expect(expected)
        row_set = row_set_of(rows)
        if len(row_set) <= CHUNK:
            lane.main.execute(*row_set.commands(), _set_positions(lane_prefix, new))
        else:
            redo = self._write_redo(lane_prefix, expected, new, row_set)
            self._apply(lane_prefix, expected, new, row_set.commands(), redo)

    def refresh(self, lane_prefix: bytes, expected: Positions, rows: Rows) -> None:
        """Write rows that are each true by themselves. Raises Fenced."""
        self._apply(lane_prefix, expected, expected, row_set_of(rows).commands())

    def reset(self, lane_prefix: bytes, moved: bool = False) -> None:
        """Drop a lane's watch; `moved`: and its connections, as the lane may be on another node."""
        lane = self._lanes.pop(lane_prefix, None) if moved else self._lanes.get(lane_prefix)
        if lane is not None:
            lane.reset()

    def close(self) -> None:
        """Close the lanes' connections."""
        for lane in self._lanes.values():
            lane.reset()

    def _write_redo(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: RowSet) -> _Redo:
        """Write the record: steps 1 and 2."""
        connection, attempt = self._lane(lane_prefix).main, secrets.token_hex(8)
        pieces: list[bytes] = []
        writes: list[Command] = []
        for parts in redo_pieces(rows):
            piece = keys.redo_piece(lane_prefix, attempt, len(pieces))
            size = sum(len(part) for part in parts)
            head = b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(piece), piece, size)
            writes.append([head, *parts, EXPIRING])
            pieces.append(piece)
        try:
            connection.run(*writes)
        except redis.ResponseError:
            connection.run([pack(("DEL", *pieces))])
            raise
        record = orjson.dumps([expected, new, attempt, len(pieces)])
        connection.execute(
            *([pack(("PERSIST", piece))] for piece in pieces), [pack(("SET", keys.redo(lane_prefix), record))]
        )
        return _Redo(record, pieces)

    def _finish(self, lane_prefix: bytes, seen: Fence, new: Positions, redo: _Redo) -> None:
        """Apply and seal the record that another owner left behind; raises Fenced, RowsDoNotFit."""
        client = self._nodes.client_for(lane_prefix)
        commands: list[Command] = []
        try:
            for piece in redo.pieces:  # one by one: all of them at once would keep readers waiting
                commands += commands_of(client.get(piece), client.mget)
        except RowsDoNotFit:
            # That owner may still be alive, and have sealed the record and gone on meanwhile.
            if self._lane(lane_prefix).main.watch() != seen:
                raise Fenced("another owner finished its commit") from None
            raise
        self._apply(lane_prefix, decode_positions(seen.positions), new, commands, redo)

    def _apply(
        self,
        lane_prefix: bytes,
        expected: Positions,
        new: Positions,
        commands: Iterable[Command],
        redo: _Redo | None = None,
    ) -> None:
        """Write the rows and seal them: steps 3 and 4; `redo` is their record, None when they need none."""
        lane = self._lane(lane_prefix)
        for connection in lane:
            connection.expect(expected, redo.record if redo else None)
        try:
            for i, command in enumerate(commands):
                connection = lane[i % 2]
                connection.receive()
                connection.send(command)
            lane.main.receive()
            lane.second.receive()
        except BaseException:
            lane.reset()
            raise
        lane.second.unwatch()
        lane.main.execute(_set_positions(lane_prefix, new), _drop_redo(lane_prefix, redo.pieces if redo else ()))

    def _lane(self, lane_prefix: bytes) -> _Lane:
        if lane_prefix not in self._lanes:
            pool = self._nodes.client_for(lane_prefix).connection_pool
            guard = keys.positions(lane_prefix), keys.redo(lane_prefix)
            self._lanes[lane_prefix] = _Lane(*(FencedConnection(pool.get_connection(), *guard) for _ in range(2)))
        return self._lanes[lane_prefix]


def row_set_of(rows: Rows) -> RowSet:
    """Return the rows as a set of rows, as they are if they are one."""
    return rows if isinstance(rows, RowSet) else RowSet(rows)


def _set_positions(lane_prefix: bytes, new: Positions) -> Command:
    return [pack(("SET", keys.positions(lane_prefix), encode_positions(new)))]


def _drop_redo(lane_prefix: bytes, pieces: Sequence[bytes]) -> Command:
    # UNLINK: freeing megabytes at once would keep readers waiting.
    return [pack(("UNLINK", keys.redo(lane_prefix), *pieces))]
