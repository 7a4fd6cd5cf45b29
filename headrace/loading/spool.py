"""Events in order of time and orders in one piece, whatever the order of a file: a database in a temporary file.

SQLite sorts on disk, so that memory stays the same for files of any size (64 MiB of its pages); the
temporary file has about the size of the events as JSON.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from schemas.json_events import LINE_FIELDS

PIECE = 5_000


class Spooled(NamedTuple):
    """An event and where it came from."""

    line: int
    event: dict[str, Any]


class Spool:
    """Events on their way from a file to the log."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": a temporary file, gone when it is closed
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA cache_size = -65536")
        self._db.execute("PRAGMA temp_store = FILE")
        self._db.execute("CREATE TABLE events (n INTEGER PRIMARY KEY, line INTEGER, ts INTEGER, part TEXT, body BLOB)")
        self._db.execute("BEGIN")
        self._waiting: list[tuple[int, int | None, str | None, bytes]] = []
        self.n_rows, self._sorted, self._any_order, self._last = 0, True, False, 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def add(self, line: int, event: dict[str, Any], order: str = "") -> None:
        """Keep an event; those with the same `order` become one."""
        ts = event.get("ts_ms", 0)
        self._sorted = self._sorted and ts >= self._last
        self._last = ts
        self._any_order = self._any_order or bool(order)
        self._waiting.append((line, ts, order or None, orjson.dumps(event)))
        self.n_rows += 1
        if len(self._waiting) >= PIECE:
            self._write()

    def _write(self) -> None:
        self._db.executemany("INSERT INTO events (line, ts, part, body) VALUES (?, ?, ?, ?)", self._waiting)
        self._waiting.clear()

    def n_events(self) -> int:
        """Return how many events there are, an order counted once."""
        self._write()
        if not self._any_order:
            return self.n_rows
        single = self._db.execute("SELECT count(*) FROM events WHERE part IS NULL").fetchone()[0]
        return int(single + self._db.execute("SELECT count(DISTINCT part) FROM events").fetchone()[0])

    def events(self) -> Iterator[Spooled]:
        """Yield the events in order of time, at the same time in the order of the file; one of an order has its lines.

        An event without an id gets one of its content, and of how many before it are the same.
        """
        self._write()
        at, same = None, Counter[bytes]()
        for line, event in self._in_order():
            if event.get("ts_ms") != at:  # events that are the same are together
                at, same = event.get("ts_ms"), Counter()
            if "event_id" not in event and event["type"] not in ("product", "product_gone", "erasure"):
                content = orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS)
                event["event_id"] = hashlib.blake2b(b"%d:%b" % (same[content], content), digest_size=16).hexdigest()
                same[content] += 1
            yield Spooled(line, event)

    def _in_order(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self._any_order:
            order = "n" if self._sorted else "ts, n"
            for line, body in self._db.execute(f"SELECT line, body FROM events ORDER BY {order}"):
                yield line, orjson.loads(body)
            return
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS orders (part TEXT PRIMARY KEY, ts INTEGER, n INTEGER)")
        self._db.execute(
            "INSERT OR REPLACE INTO orders "
            "SELECT part, min(ts), min(n) FROM events WHERE part IS NOT NULL GROUP BY part"
        )
        found = self._db.execute(
            "SELECT e.line, e.part, e.body, coalesce(o.ts, e.ts) AS ts, coalesce(o.n, e.n) AS first "
            "FROM events e LEFT JOIN orders o ON o.part = e.part ORDER BY ts, first, e.n"
        )
        for (part, _), rows in groupby(found, lambda row: (row[1], row[4])):
            lines = list(rows)
            if part is None:
                yield from ((line, orjson.loads(body)) for line, _, body, _, _ in lines)
            else:
                yield lines[0][0], _order([orjson.loads(row[2]) for row in lines], lines[0][3])


def _order(rows: list[dict[str, Any]], ts_ms: int) -> dict[str, Any]:
    """Return one purchase of the rows of an order."""
    whole: dict[str, Any] = {}
    for row in reversed(rows):
        whole |= {name: value for name, value in row.items() if name not in LINE_FIELDS}
    whole["ts_ms"] = ts_ms
    whole["lines"] = [{name: row[name] for name in LINE_FIELDS if name in row} for row in rows]
    return whole
