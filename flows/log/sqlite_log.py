"""The embedded log: one SQLite file, one total order, one row per appended batch.

WAL with `synchronous=FULL`: an append that returned survives kill -9 and power
loss. A batch row keeps its messages in columns (`flows.log.sqlite_rows`), so reading
one back is two copies and no loop over messages. Offsets count per topic; `spans` finds the row that holds an offset.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from flows.log.contract import (
    MOST_BYTES,
    LogUnavailable,
    Message,
    PositionLost,
    RawBatch,
    TopicReplaced,
    topic_of,
)
from flows.log.sqlite_rows import COLUMNS, READ, Int64s, LogRow, decode_row, encode_row, message_of
from schemas.events import BOOKS, DEAD_LETTERS, TOPICS
from state.store.contract import Positions

POLL_S = 0.001
BUSY_MS = 5_000
ROW_MESSAGES = 4_096
"""A longer append is cut into several rows of one transaction, so that a reader never fetches one huge row."""

TABLES = """
CREATE TABLE IF NOT EXISTS topics (id INTEGER PRIMARY KEY, name TEXT UNIQUE, earliest INTEGER, next INTEGER);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, newest_ms INTEGER, topic BLOB, offset BLOB, ts BLOB,
    lengths BLOB, payload BLOB, key_lengths BLOB, keys BLOB, headers BLOB
);
CREATE INDEX IF NOT EXISTS by_time ON batches (newest_ms);
CREATE TABLE IF NOT EXISTS identity (only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT);
INSERT OR IGNORE INTO identity VALUES (1, lower(hex(randomblob(16))));
CREATE TABLE IF NOT EXISTS spans (topic INTEGER, first INTEGER, seq INTEGER, PRIMARY KEY (topic, first)) WITHOUT ROWID;
"""


class SqliteLog:
    """A log in one file. Any number of processes may append and read."""

    def __init__(self, path: Path | str, read_topics: Sequence[str] = TOPICS) -> None:
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # It holds all that visitors did. One that is there is not opened: to close it would end the locks that
            # this process's other connections have on it, and the last of another process would remove their WAL.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._writer, self._reader = self._connect(), self._connect()
            with self._writer:
                self._writer.executescript(TABLES)
                if "headers" not in [column[1] for column in self._writer.execute("PRAGMA table_info(batches)")]:
                    self._writer.execute("ALTER TABLE batches ADD COLUMN headers BLOB")
                rows = [(name,) for name in (*TOPICS, DEAD_LETTERS, BOOKS)]
                self._writer.executemany("INSERT OR IGNORE INTO topics (name, earliest, next) VALUES (?, 0, 0)", rows)
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"the log {self._path} cannot be opened: {error}") from error
        self._write_lock = threading.Lock()
        self._topic_ids = dict(self._reader.execute("SELECT name, id FROM topics"))
        self._streams = tuple(f"{name}:0" for name in read_topics)
        self._stream_of = np.full(max(self._topic_ids.values()) + 1, -1, np.int32)
        for index, name in enumerate(read_topics):
            self._stream_of[self._topic_ids[name]] = index
        # Of a topic that has few messages only their rows are read; most rows have some of the others.
        ids = ", ".join(str(self._topic_ids[name]) for name in read_topics if name not in TOPICS)
        rare = set(read_topics).isdisjoint(TOPICS)
        self._rows_of = f"seq IN (SELECT seq FROM spans WHERE topic IN ({ids})) AND" if rare else ""
        self._row: LogRow | None = None
        self._cursor: tuple[Positions, int] | None = None
        self._nothing_at: tuple[Positions, int] | None = None
        """Positions at which nothing lay, and the version of the file that was looked at."""

    def append(self, messages: Sequence[Message]) -> None:
        """Make the messages durable, in order. Raises LogUnavailable, and then nothing of them is there."""
        if not messages:
            return
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                ends = dict(self._writer.execute("SELECT id, next FROM topics"))
                for first in range(0, len(messages), ROW_MESSAGES):
                    self._insert(messages[first : first + ROW_MESSAGES], ends)
                self._writer.executemany("UPDATE topics SET next = ? WHERE id = ?", [(n, i) for i, n in ends.items()])
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise LogUnavailable(f"the log {self._path} took nothing of the append: {error}") from error

    def append_whole(self, messages: Sequence[Message]) -> None:
        """As `append`, which is one transaction."""
        self.append(messages)

    def read(self, positions: Positions, max_messages: int, timeout_s: float) -> RawBatch | None:
        """Return the messages at `positions` in the order they were appended; None when there is none in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            version = self._data_version()
            if self._nothing_at != (positions, version):  # who polls asks again and again
                batch = self._read(positions, max_messages)
                if batch is not None:
                    return batch
                self._nothing_at = (dict(positions), version)
            while self._data_version() == version:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                time.sleep(min(POLL_S, left))

    def start(self) -> Positions:
        """Return the first offset that is still there, by stream."""
        return self._bounds("earliest")

    def end(self) -> Positions:
        """Return the offset behind the last message, by stream."""
        return self._bounds("next")

    def topic_ids(self) -> dict[str, str]:
        """Return the file's own id for every topic."""
        (found,) = self._reader.execute("SELECT id FROM identity").fetchone()
        return dict.fromkeys(map(topic_of, self._streams), str(found))

    def offsets_at(self, ts_ms: int) -> Positions:
        """Return, by stream, the first offset whose message time is at or after `ts_ms`; the end where none is."""
        found = self.end()
        missing = set(found)
        for topic, offset, ts in self._reader.execute(
            "SELECT topic, offset, ts FROM batches WHERE newest_ms >= ? ORDER BY seq", (ts_ms,)
        ):
            stream = self._stream_of[np.frombuffer(topic, np.int32)]
            offsets, late = np.frombuffer(offset, np.int64), np.frombuffer(ts, np.int64) >= ts_ms
            for name in list(missing):
                hits = offsets[late & (stream == self._streams.index(name))]
                if len(hits):
                    found[name] = int(hits[0])
                    missing.discard(name)
            if not missing:
                break
        return found

    def report(self, positions: Positions) -> None:
        """Do nothing: there is no tool that would look."""

    def retain(self, from_ts_ms: int) -> int:
        """Drop the oldest rows whose messages are all older than `from_ts_ms`; return how many messages went.

        Books of rules stay.
        """
        with self._write_lock, self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            others = "seq NOT IN (SELECT seq FROM spans WHERE topic = ?)"
            query = f"SELECT seq FROM batches WHERE newest_ms >= ? AND {others} ORDER BY seq LIMIT 1"
            books = self._topic_ids[BOOKS]
            kept = self._writer.execute(query, (from_ts_ms, books)).fetchone()
            old, bounds = f"seq < ? AND {others}", (kept[0] if kept else 1 << 62, books)
            gone = self._writer.execute(f"SELECT sum(length(lengths)) FROM batches WHERE {old}", bounds).fetchone()[0]
            self._writer.execute(f"DELETE FROM batches WHERE {old}", bounds)
            self._writer.execute(f"DELETE FROM spans WHERE {old}", bounds)
            self._writer.execute(
                "UPDATE topics SET earliest = coalesce((SELECT min(first) FROM spans WHERE topic = topics.id), next)"
            )
        return (gone or 0) // 4

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _insert(self, messages: Sequence[Message], ends: dict[int, int]) -> None:
        topics = [self._topic_ids[message.topic] for message in messages]
        offsets: list[int] = []
        spans: dict[int, int] = {}
        for topic in topics:
            offsets.append(ends[topic])
            spans.setdefault(topic, ends[topic])
            ends[topic] += 1
        marks = ", ".join("?" * (COLUMNS.count(",") + 1))
        row = encode_row(messages, topics, offsets)
        cursor = self._writer.execute(f"INSERT INTO batches ({COLUMNS}) VALUES ({marks})", row)
        self._writer.executemany(
            "INSERT INTO spans VALUES (?, ?, ?)", [(topic, first, cursor.lastrowid) for topic, first in spans.items()]
        )

    def _data_version(self) -> int:
        return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def _bounds(self, column: str) -> Positions:
        found = dict(self._reader.execute(f"SELECT name || ':0', {column} FROM topics"))
        return {stream: found[stream] for stream in self._streams}

    def _first_row(self, positions: Positions) -> int:
        """Return the seq of the first row that can hold a message at or past `positions`."""
        if self._cursor is not None and self._cursor[0] == positions:
            return self._cursor[1]
        first = None
        end = self.end()
        for stream, earliest in self.start().items():
            position = positions.get(stream, earliest)
            if position < earliest:
                raise PositionLost(stream, position, earliest)
            if position > end[stream]:
                raise TopicReplaced(stream, f"it ends at {end[stream]}, before position {position}")
            topic = self._topic_ids[stream.rpartition(":")[0]]
            span = self._reader.execute(
                "SELECT seq FROM spans WHERE topic = ? AND first <= ? ORDER BY first DESC LIMIT 1", (topic, position)
            ).fetchone()
            if span is not None and (first is None or span[0] < first):
                first = span[0]
        return first or 0

    def _rows_from(self, seq: int) -> Iterator[LogRow]:
        """Yield the rows from `seq` on, each one read when it is needed."""
        if self._row is not None and self._row.seq == seq:
            yield self._row
            seq += 1
        for row in self._reader.execute(
            f"SELECT {READ} FROM batches WHERE {self._rows_of} seq >= ? ORDER BY seq", (seq,)
        ):
            yield decode_row(*row)

    def _read(self, positions: Positions, max_messages: int) -> RawBatch | None:
        wanted = np.array([positions.get(stream, 0) for stream in self._streams], np.int64)
        seq, n_found, n_bytes = self._first_row(positions), 0, 0
        parts: list[tuple[LogRow, Int64s]] = []
        for row in self._rows_from(seq):
            stream = self._stream_of[row.topic]
            here = np.flatnonzero((stream >= 0) & (row.offset >= wanted[stream]))
            fits = here[: max_messages - n_found]
            n_found += len(fits)
            n_bytes += len(row.payload)
            if len(fits):
                parts.append((row, fits))
            seq = row.seq if len(fits) < len(here) else row.seq + 1
            self._row = row if len(fits) < len(here) else None
            if n_found == max_messages or (n_found and n_bytes > MOST_BYTES):
                break
        if not n_found:
            return None
        batch = self._batch(parts, positions)
        self._cursor = (batch.after, seq)
        return batch

    def _batch(self, parts: list[tuple[LogRow, Int64s]], positions: Positions) -> RawBatch:
        payloads: list[bytes | memoryview] = []
        tombstones: dict[int, bytes] = {}
        n = 0
        for row, chosen in parts:
            sizes = np.maximum(row.lengths, 0)
            ends = np.cumsum(sizes, dtype=np.int64)
            if len(chosen) == chosen[-1] - chosen[0] + 1:
                payloads.append(memoryview(row.payload)[ends[chosen[0]] - sizes[chosen[0]] : ends[chosen[-1]]])
            else:
                payloads += [row.payload[ends[i] - sizes[i] : ends[i]] for i in chosen.tolist()]
            key_ends = np.cumsum(np.maximum(row.key_lengths, 0))
            for k in np.flatnonzero(row.lengths[chosen] < 0).tolist():
                i = chosen[k]
                tombstones[n + k] = row.keys[key_ends[i] - max(row.key_lengths[i], 0) : key_ends[i]]
            n += len(chosen)
        lengths = np.concatenate([np.maximum(row.lengths[chosen], 0) for row, chosen in parts])
        stream = np.concatenate([self._stream_of[row.topic[chosen]] for row, chosen in parts])
        offset = np.concatenate([row.offset[chosen] for row, chosen in parts])
        known = all(name in positions for name in self._streams)  # the rule once the first batch is read
        start = {} if known else self.start()
        before = {name: positions[name] if name in positions else start[name] for name in self._streams}
        after = dict(before)
        for index in np.unique(stream).tolist():
            after[self._streams[index]] = int(offset[stream == index][-1]) + 1
        bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
        payload = np.frombuffer(b"".join(payloads), np.uint8)
        firsts = np.cumsum([0, *(len(chosen) for _, chosen in parts)])

        def original(i: int) -> Message:
            part = int(np.searchsorted(firsts, i, side="right")) - 1
            row, chosen = parts[part]
            return message_of(row, int(chosen[i - firsts[part]]), self._streams[stream[i]].rpartition(":")[0])

        return RawBatch(
            self._streams, stream, offset, payload, bounds, before, after, tombstones, original=original
        )  # fmt: skip
