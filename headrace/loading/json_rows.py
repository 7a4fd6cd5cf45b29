"""JSON: one object a line, or one list of objects."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO

import orjson

from headrace.loading.bytes_of_files import Packed
from headrace.loading.errors import BadFile
from headrace.loading.source import Row, Source, Unreadable

SAMPLED = 1_000
"""Objects whose keys are the columns."""


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return an object without objects in it: `geo.country` for what lies inside; lists stay.

    >>> flat({"a": 1, "geo": {"country": "DE"}, "items": [{"id": 7}]})
    {'a': 1, 'geo.country': 'DE', 'items': [{'id': 7}]}
    """
    row: dict[str, Any] = {}
    for name, one in value.items():
        if isinstance(one, dict):
            row |= flat(one, f"{prefix}{name}.")
        else:
            row[prefix + name] = one
    return row


def read_json(packed: Packed, name: str, size: int) -> Source:
    """Return the rows of a file with an object a line, or with one list of objects. Raises BadFile."""
    start = packed.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[" or _is_one_value(start):
        return _array(packed, name)
    return _lines(packed, size)


def _is_one_value(start: bytes) -> bool:
    """Return whether the first line is not an object by itself, so that the file is one value over many lines."""
    line = start.split(b"\n", 1)[0].strip()
    try:
        return not isinstance(orjson.loads(line), dict) or b"\n" not in start
    except orjson.JSONDecodeError:
        return len(start) < 1 << 16 or b"\n" in start


def _columns(rows: Iterator[Row]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    with closing(rows) as sample:  # type: ignore[type-var]
        for _, row in islice(sample, SAMPLED):
            if isinstance(row, dict):
                names |= dict.fromkeys(row)
    return tuple(names)


def _array(packed: Packed, name: str) -> Source:
    """Return the objects of one list, which may be the value of one name; the file is held in memory."""
    with packed.open()[0] as file:
        try:
            found = orjson.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
        except orjson.JSONDecodeError as error:
            raise BadFile(f"{name} cannot be read as JSON: {error}") from None
    if isinstance(found, dict):
        lists = [one for one in found.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        found = lists[0] if len(lists) == 1 else [found]
    if not found:
        raise BadFile(f"{name} cannot be read as JSON: its list is empty")
    passed = [0]

    def rows() -> Iterator[Row]:
        for n, one in enumerate(found, 1):
            passed[0] = n
            yield n, flat(one) if isinstance(one, dict) else Unreadable("is no object", str(one)[:80])

    return Source(
        "JSON", _columns(rows()), rows, lambda: passed[0] / len(found), dict(packed.details), row_word="object"
    )


def _lines(packed: Packed, size: int) -> Source:
    opened: list[BinaryIO] = []

    def rows() -> Iterator[Row]:
        content, file = packed.open()
        opened[:] = [file]
        with content:
            for n, line in enumerate(content, 1):
                if not line.strip():
                    continue
                try:
                    one = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if n == 1 else line)
                except orjson.JSONDecodeError as error:
                    yield n, Unreadable(f"is no JSON: {str(error).split(':')[0]}", line[:80].decode(errors="replace"))
                    continue
                yield n, flat(one) if isinstance(one, dict) else Unreadable("is no object", str(one)[:80])

    def done() -> float:
        return min(opened[0].tell() / max(size, 1), 1.0) if opened and not opened[0].closed else 1.0

    return Source("JSON lines", _columns(rows()), rows, done, dict(packed.details))
