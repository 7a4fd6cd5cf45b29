"""Books of rules in the log; Redis holds a copy, which is a fold of them.

    books                       topic: a message a put, with version, time, author, note, the book as JSON, and its text
    {headrace:rules}<version>   the same as a row (JSON)
    {headrace:rules}positions   {"book": live version, "newest": highest version, "books:0": next offset}

Of messages with the same version the first counts, and the highest version is live. So the fold may read a message
twice, and messages in any order give the same rows.

A put has four steps:
    1. Catch up: fold what the topic holds beyond the position in Redis.
    2. Check that the book is made from the live one, and that Redis takes writes.
    3. Append the book with the next version; it is durable now.
    4. Catch up again. It is live now.
It dies before step 3: nothing is put. Between 3 and 4: the book becomes live at the next put, or when a flow or server
starts or finds that Redis has lost its data; the caller has got no answer, and sees it in the history. Two puts at the
same time append the same version: the first in the log wins whoever folds them, and the other is told `BookConflict`.

Whoever catches up rebuilds the rows of a Redis that has lost them. Where Redis has books and no position (an older
version did not write them to the log), or one that does not lie in the topic (which was deleted and made again), the
books that the topic lacks are appended first.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
import structlog

from flows.log.contract import Log, LogUnavailable, Message, MessageRefused
from flows.log.open_log import open_log
from flows.log.read_to import read_to
from flows.settings import FlowSettings
from schemas.events import BOOKS
from schemas.json_events import encode
from schemas.records import Malformed, read_value
from schemas.registry import SchemaRegistry, UnknownSchema
from schemas.resolve import UnreadableSchema
from state.rows import keys
from state.store.contract import Fenced, Positions, Store, decode_positions

ROWS_AT_ONCE = 20
"""A book has up to a megabyte."""
PATIENCE_S = 5.0
TRIES = 10
"""So often another process may fold at the same time."""
READ_BACK_TRIES, READ_BACK_S = 50, 0.05
"""A broker may show a message a moment after it has confirmed it."""
KEY = b"book"
"""All messages have the same key, so that they are in one partition."""

Record = dict[str, Any]
log = structlog.get_logger()


class BookConflict(Exception):
    """The live book is not the one that the new one was made from; nothing was put."""

    def __init__(self, live: int, based_on: int | None = None) -> None:
        made = "somebody else put one at the same time" if based_on is None else f"this one was made from {based_on}"
        super().__init__(f"the live book is version {live}, and {made}: look at it, and put again")
        self.live = live


class BookTooLarge(ValueError):
    """The log does not take so large a message."""


class Books:
    """Puts books of rules into the log and Redis. Threads may share it."""

    def __init__(self, store: Store, open_books: Callable[[], Log], registry: SchemaRegistry) -> None:
        """`open_books` opens the log on the topic of books; it is closed after each use, as puts are rare."""
        self._store, self._open, self._registry = store, open_books, registry
        self._lock = threading.Lock()  # commits of one lane may not run at the same time

    def catch_up(self) -> int:
        """Make Redis hold all books of the log; return the live version, 0 where there is none.

        Raises LogUnavailable, RegistryUnavailable, StoreUnavailable.
        """
        with self._lock:
            books = self._open()
            try:
                return self._catch_up(books)
            finally:
                books.close()

    def put(
        self,
        book: Mapping[str, Any],
        author: str,
        now_ms: int,
        note: str = "",
        based_on: int | None = None,
        text: str = "",
    ) -> int:
        """Make a book the live one, durably; return its version.

        `based_on`: the version it was made from. `text`: the book as its author wrote it.

        Raises BookConflict and BookTooLarge, and then nothing is put; what `catch_up` raises, and then it may be.
        """
        with self._lock:
            books = self._open()
            try:
                live = self._catch_up(books)
                if based_on is not None and based_on != live:
                    raise BookConflict(live, based_on)
                version = self._store.positions(keys.RULES).get("newest", 0) + 1  # fails where Redis takes no writes
                record = {"version": version, "author": author, "note": note, "at_ms": now_ms, "book": book}
                if text:
                    record["text"] = text
                self._append(books, record)
                if self._stored(books, version) != orjson.dumps(record):
                    raise BookConflict(version)
                return version
            finally:
                books.close()

    def _stored(self, books: Log, version: int) -> bytes:
        """Return the row of a version that was just appended, once it can be read back."""
        for _ in range(READ_BACK_TRIES):
            self._catch_up(books)
            (row,) = self._store.read([keys.rules(version)])
            if row is not None:
                return row
            time.sleep(READ_BACK_S)
        raise LogUnavailable("the log took the book and does not give it back yet; it will become live")

    def _append(self, books: Log, record: Record) -> None:
        message = _message(record, self._registry)
        try:
            books.append([message])
        except MessageRefused as error:
            raise BookTooLarge(str(error)) from None

    def _catch_up(self, books: Log) -> int:
        for _ in range(TRIES):
            try:
                return self._fold(books)
            except Fenced:
                continue
        raise LogUnavailable("other processes put books all the time; try again")

    def _fold(self, books: Log) -> int:
        """Fold the rest of the topic into Redis. Raises Fenced where another process did so at the same time."""
        start, end = books.start(), books.end()
        at = decode_positions(self._store.read([keys.positions(keys.RULES)])[0])
        here = {stream: at[stream] for stream in end if start[stream] <= at.get(stream, -1) <= end[stream]}
        newest = at.get("newest", 0)
        if here == end or (not newest and start == end):
            return at.get("book", 0)
        at = self._store.positions(keys.RULES)
        if newest and not here:
            end = self._refill(books, newest, start, end)
        rows = dict[bytes, bytes]()
        for record in self._records(books, here or start, end):
            key = keys.rules(record["version"])
            newest = max(newest, record["version"])
            if key not in rows and self._store.read([key]) == [None]:
                rows[key] = orjson.dumps(record)
            if len(rows) == ROWS_AT_ONCE:  # servers follow the pointer: it moves once, at the end
                self._store.refresh(keys.RULES, at, rows)
                rows = {}
        self._store.commit(keys.RULES, at, {"book": newest, "newest": newest, **end}, rows)
        return newest

    def _refill(self, books: Log, newest: int, start: Positions, end: Positions) -> Positions:
        """Append the books that only Redis has; return the end of the topic."""
        there = {record["version"] for record in self._records(books, start, end)}
        for version in range(1, newest + 1):
            (row,) = self._store.read([keys.rules(version)])
            if row is not None and version not in there:
                self._append(books, orjson.loads(row))
        return books.end()

    def _records(self, books: Log, start: Positions, end: Positions) -> Iterator[Record]:
        """Yield the books of the topic as the rows have them; what is none is logged and skipped."""
        for batch in read_to(books, start, end, PATIENCE_S):
            for i in range(len(batch)):
                try:
                    yield _record(batch.value(i), self._registry)
                except (Malformed, UnknownSchema, UnreadableSchema, ValueError) as error:
                    log.error(
                        "a message on the topic of books is no book", offset=int(batch.offset[i]), error=str(error)
                    )


def _message(record: Record, registry: SchemaRegistry) -> Message:
    """Return a book as a message of the topic."""
    at_ms = record.get("at_ms", 0)
    texts = {name: record.get(name, "") for name in ("author", "note", "text")}
    body = {"version": record["version"], "ts_ms": at_ms, **texts, "book": orjson.dumps(record["book"]).decode()}
    return Message(BOOKS, KEY, encode(BOOKS, body, registry), at_ms)


def _record(value: bytes, registry: SchemaRegistry) -> Record:
    """Return a message of the topic as a row has it. Raises Malformed, UnknownSchema, UnreadableSchema, ValueError."""
    body = read_value(value, BOOKS, registry)
    book = orjson.loads(body["book"])
    if body["version"] < 1 or not isinstance(book, dict):
        raise Malformed(f"version {body['version']} is below 1, or its book is no object")
    record = {name: body[name] for name in ("version", "author", "note")} | {"at_ms": body["ts_ms"], "book": book}
    return record | ({"text": body["text"]} if body["text"] else {})


def open_books(settings: FlowSettings, store: Store, registry: SchemaRegistry) -> Books:
    """Return the books of an installation."""
    bound = {"delivery.timeout.ms": str(int(settings.log_timeout_s * 1000))}
    return Books(store, lambda: open_log(settings.log_address, [BOOKS], {**bound, **settings.kafka_config}), registry)
