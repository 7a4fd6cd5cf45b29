"""Rows of an export take the shape of one item each: names, gaps, lists, properties, other files."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from headrace.loading.cells import is_empty, text_of
from headrace.loading.errors import BadFile
from headrace.loading.json_rows import flat
from headrace.loading.presets import Beside, Clock, Layout
from headrace.loading.reading import open_source
from headrace.loading.source import Row, Source

CLOCK_BEGINS_MS = 1_451_606_400_000
"""2016-01-01: when an export has only distances between orders, each visitor's first one is on this day."""
HOUR_MS = 3_600_000
SAMPLED = 1_000

Shape = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]


def named(source: Source, layout: Layout) -> Source:
    """Return a file without a header with the names that an export gives to its columns."""
    if source.has_header:
        return source

    def rows() -> Iterator[Row]:
        for line, row in source.rows():
            yield line, dict(zip(layout.names, row.values(), strict=False)) if isinstance(row, dict) else row

    details = {name: text for name, text in source.details.items() if name != "header"}
    return replace(source, columns=layout.names, rows=rows, details=details)


def shaped(source: Source, layout: Layout | None, path: Path) -> Source:
    """Return the rows with an item each; rows that the export leaves aside are gone. Raises BadFile."""
    if layout is None:
        return source
    steps: list[Shape] = []
    if layout.fill is not None:
        steps.append(_filled(*layout.fill))
    if layout.skip or layout.keep:
        steps.append(_chosen(layout))
    if layout.explode:
        steps.append(_exploded(layout.explode))
    if layout.pivot is not None:
        name, value = layout.pivot.name, layout.pivot.value
        steps.append(lambda row: iter([row | {str(row.get(name)): row.get(value)}]))
    for other in layout.beside:
        if (joined := _joined(other, layout.clock, path)) is not None:
            steps.append(joined)

    def rows() -> Iterator[Row]:
        for line, row in source.rows():
            if not isinstance(row, dict):
                yield line, row
                continue
            made = [row]
            for step in steps:
                made = [one for before in made for one in step(before)]
            for one in made:
                yield line, one

    extra = tuple(name for other in layout.beside for name in other.columns)
    if layout.pivot is not None:
        extra += tuple(layout.pivot.fields)
    if layout.explode:
        extra += _inner_columns(rows(), source.columns)
    return replace(source, columns=(*source.columns, *extra), rows=rows)


def _inner_columns(rows: Iterator[Row], outer: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that lists bring along, of the first rows."""
    with closing(rows) as sample:  # type: ignore[type-var]
        found = {name: None for _, row in islice(sample, SAMPLED) if isinstance(row, dict) for name in row}
    return tuple(name for name in found if name not in outer)


def _filled(key: str, columns: tuple[str, ...]) -> Shape:
    last: dict[str, Any] = {}

    def fill(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        nonlocal last
        if last.get(key) == row.get(key):
            row = row | {one: last.get(one) for one in columns if is_empty(row.get(one))}
        last = row
        yield row

    return fill


def _chosen(layout: Layout) -> Shape:
    def choose(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for column, words in layout.skip.items():
            if column in row and _word(row[column]) in words:
                return
        for column, words in layout.keep.items():
            if _word(row.get(column)) not in words:
                return
        yield row

    return choose


def _word(cell: Any) -> str:
    return "" if is_empty(cell) else text_of(cell).lower()


def _exploded(column: str) -> Shape:
    def explode(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        row = row | _parameters(row)
        items = row.pop(column, None)
        if isinstance(items, str):  # a list that an export to CSV wrote as text
            try:
                items = orjson.loads(items)
            except orjson.JSONDecodeError:
                items = None
        if not isinstance(items, list) or not items:
            yield row
            return
        for item in items:
            yield row | (flat(item, f"{column}.") if isinstance(item, dict) else {f"{column}.item_id": item})

    return explode


def _parameters(row: dict[str, Any]) -> dict[str, Any]:
    """Return lists of `{"key": …, "value": {…}}` as columns: `event_params.ga_session_id`."""
    found = {}
    for name, cell in row.items():
        if isinstance(cell, list) and cell and isinstance(cell[0], dict) and "key" in cell[0]:
            for one in cell:
                values = one.get("value") or {}
                values = values.values() if isinstance(values, dict) else [values]
                found[f"{name}.{one['key']}"] = next((value for value in values if value is not None), None)
    return found


def _joined(other: Beside, clock: Clock | None, path: Path) -> Shape | None:
    """Return the step that adds another file's columns. Raises BadFile where a needed one is missing."""
    file = next((one for one in (path.parent / other.file, path.parent / f"{other.file}.gz") if one.exists()), None)
    if file is None:
        if clock is None:
            return None  # names for numbers: the numbers do as well
        raise BadFile(f"{path.name} needs {other.file} beside it: {other.file} has the visitors and the times")
    found = _table_of(file, other, clock)

    def join(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        match = found.execute("SELECT body FROM other WHERE key = ?", (str(row.get(other.key)),)).fetchone()
        yield row if match is None else row | orjson.loads(match[0])

    return join


def _table_of(file: Path, other: Beside, clock: Clock | None) -> sqlite3.Connection:
    """Return a file's columns by key, in a database that is gone when it is closed: files of orders have millions."""
    table = sqlite3.connect("")  # on disk, in the folder of temporary files
    table.execute("PRAGMA cache_size = -65536")
    table.execute("CREATE TABLE other (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID")
    passed_ms: dict[str, int] = {}

    def entries() -> Iterator[tuple[str, bytes]]:
        with closing(open_source(file).rows()) as rows:  # type: ignore[type-var]
            for _, row in rows:
                if isinstance(row, dict):
                    if clock is not None:
                        row["ts"] = _time(row, clock, passed_ms)
                    yield str(row.get(other.key)), orjson.dumps({name: row.get(name) for name in other.columns})

    table.executemany("INSERT OR REPLACE INTO other VALUES (?, ?)", entries())
    return table


def _time(row: dict[str, Any], clock: Clock, passed_ms: dict[str, int]) -> int:
    """Return when an order was: its visitor's first day, and the days between orders since then."""
    user, days, hour = row.get(clock.user), row.get(clock.days), row.get(clock.hour)
    key = str(user)
    passed_ms[key] = passed_ms.get(key, 0) + (0 if is_empty(days) else int(float(str(days)) * 24) * HOUR_MS)
    return CLOCK_BEGINS_MS + passed_ms[key] + (0 if is_empty(hour) else int(str(hour)) * HOUR_MS)
