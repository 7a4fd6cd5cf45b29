"""Resolved schemas compiled to small programs, so that one kernel reads every way of writing an event.

A program is an int64 array (n, 6), one entry a row: type, slot, position of null in a
simple union (-1: none), two numbers that depend on the type, and how many rows the entry
takes with all that belongs to it. Slot IGNORED reads a field past.

| type | first number | second number | rows behind it |
| --- | --- | --- | --- |
| SCALED, an integer | divisor | | |
| FIXED | bytes | | |
| DECIMAL | scale | bytes; -1: a length comes first | |
| ENUM | | symbols | one SYMBOL each: where its text starts in `texts`, its length |
| CHOICE | branches | | one entry each |
| LINES | 1: fields that lines need come later | | the fields of a line |
| SKIPPED_RECORD, SKIPPED_ARRAY, SKIPPED_MAP, SKIPPED_UNION | branches of a union | | what it holds |
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas import resolve

(TEXT, INTEGER, DOUBLE, FLOAT, BOOLEAN, TEXT_MAP, LINES, NULL, NEVER, FIXED, ENUM, SYMBOL, DECIMAL, SCALED, CHOICE,
 SKIPPED_RECORD, SKIPPED_ARRAY, SKIPPED_MAP, SKIPPED_UNION) = range(19)  # fmt: skip
FIRST_SKIPPED = SKIPPED_RECORD
IGNORED = -1

EVENT_ID, USER, SESSION, ITEM, KIND, CATEGORY, BRAND, COUNTRY = range(8)
N_TEXTS = 8
TS_MS, PRICE, QUANTITY, STARS = range(8, 12)
N_SLOTS = 12

SLOTS = {
    "event_id": EVENT_ID,
    "user": USER,
    "session": SESSION,
    "item": ITEM,
    "kind": KIND,
    "category": CATEGORY,
    "brand": BRAND,
    "country": COUNTRY,
    "ts_ms": TS_MS,
    "price": PRICE,
    "quantity": QUANTITY,
    "stars": STARS,
}
LISTED = (KIND, CATEGORY, BRAND, COUNTRY)
"""Texts of which only the hash is kept, so that an enum's will do."""
TYPES = {"int": INTEGER, "long": INTEGER, "double": DOUBLE, "float": FLOAT, "boolean": BOOLEAN, "null": NULL}
MOST_NESTED = 16
MOST_ENTRIES = 2000
MOST_EXACT_SCALE = 22
"""The largest power of ten that a float64 holds exactly."""

Rows = list[list[int]]


class NotCompiled(Exception):
    """The schema has a shape the kernel does not read; fastavro reads it instead."""


class Program(NamedTuple):
    """What the kernel runs for a schema."""

    entries: npt.NDArray[np.int64]
    texts: npt.NDArray[np.uint8]
    """The symbols of its enums, end to end."""


def compile_schema(resolved: resolve.Resolved) -> Program:
    """Return the program of a resolved schema; raises NotCompiled."""
    if resolved.recursive or not isinstance(resolved.tree, Mapping) or resolved.tree["type"] != "record":
        raise NotCompiled("no record, a union of them, or a type that contains itself")
    compiler = _Compiler()
    rows = compiler.fields(resolved.tree["fields"])
    return Program(np.array(rows, np.int64).reshape(-1, 6), np.frombuffer(bytes(compiler.texts) or b"\0", np.uint8))


class _Compiler:
    def __init__(self) -> None:
        self.texts = bytearray()
        self._named: dict[str, Mapping[str, Any]] = {}
        self._n_skipped = 0

    def fields(self, fields: list[Any]) -> Rows:
        rows: Rows = []
        lines: Rows = []
        for field in fields:
            if field["name"] == "lines":
                lines = self._lines(field["type"])
                rows += lines
                continue
            found = self._field(field)
            if lines and any(row[1] != IGNORED for row in found):
                lines[0][3] = 1
            rows += found
        return rows

    def _field(self, field: Any) -> Rows:
        name = field["name"]
        slot = SLOTS.get(name, IGNORED)
        return self._skipped(field["type"], 0) if slot == IGNORED else self._kept(field["type"], slot)

    def _lines(self, tree: Any) -> Rows:
        if not isinstance(tree, Mapping) or not isinstance(tree["items"], Mapping):
            raise NotCompiled("lines that may be null, or of several records")
        inner = [row for field in tree["items"]["fields"] for row in self._field(field)]
        return _with_rows(LINES, IGNORED, 0, inner)

    def _kept(self, tree: Any, slot: int) -> Rows:
        """Return the entries of a field that is ours."""
        if isinstance(tree, Mapping):
            return self._leaf(tree, slot)
        if len(tree) == 2 and tree.count({"type": "null"}) == 1:
            null_at = tree.index({"type": "null"})
            rows = self._leaf(tree[1 - null_at], slot)
            if rows[0][0] != NEVER:
                rows[0][2] = null_at
                return rows
        return _with_rows(CHOICE, slot, len(tree), [row for branch in tree for row in self._leaf(branch, slot)])

    def _leaf(self, tree: Mapping[str, Any], slot: int) -> Rows:
        kind, logical = tree["type"], tree.get("logicalType")
        if logical in (resolve.MISMATCH, resolve.NULL):
            return [[NEVER, slot, -1, 0, 0, 1]]
        if logical == resolve.DECIMAL:
            if tree["scale"] > MOST_EXACT_SCALE:
                raise NotCompiled("more digits than a float64 has")
            return [[DECIMAL, slot, -1, tree["scale"], tree.get("size", -1), 1]]
        if kind == "enum" and slot in LISTED:
            symbols = []
            for symbol in tree["symbols"]:
                text = symbol.encode()
                symbols.append([SYMBOL, IGNORED, -1, len(self.texts), len(text), 1])
                self.texts += text
            rows = _with_rows(ENUM, slot, 0, symbols)
            rows[0][4] = len(symbols)
            return rows
        if kind in ("string", "bytes"):
            return [[TEXT, slot, -1, 0, 0, 1]]
        if kind in TYPES:
            return [[SCALED if "per_ms" in tree else TYPES[kind], slot, -1, tree.get("per_ms", 0), 0, 1]]
        raise NotCompiled(str(kind))

    def _skipped(self, tree: Any, depth: int) -> Rows:
        """Return the entries that read a field past, and refuse what fastavro would refuse of it."""
        self._n_skipped += 1
        if depth > MOST_NESTED or self._n_skipped > MOST_ENTRIES:
            raise NotCompiled("types nested too deep, or too many")
        if isinstance(tree, str):
            tree = self._named[tree]
        if isinstance(tree, list):
            return _with_rows(
                SKIPPED_UNION, IGNORED, len(tree), [row for branch in tree for row in self._skipped(branch, depth + 1)]
            )
        kind, logical = tree["type"], tree.get("logicalType")
        if "name" in tree:
            self._named[tree["name"]] = tree
        if logical in (resolve.MISMATCH, resolve.NULL, resolve.DECIMAL):
            return self._leaf(tree, IGNORED)
        if kind == "string" or logical == resolve.TEXT:
            return [[TEXT, IGNORED, -1, 0, 0, 1]]
        if kind == "bytes":
            return [[FIXED, IGNORED, -1, -1, 0, 1]]
        if kind == "fixed":
            return [[FIXED, IGNORED, -1, tree["size"], 0, 1]]
        if kind == "enum":
            return [[ENUM, IGNORED, -1, 0, len(tree["symbols"]), 1]]
        if kind in TYPES:
            return [[TYPES[kind], IGNORED, -1, 0, 0, 1]]
        if kind == "map" and tree["values"] == {"type": "string"}:
            return [[TEXT_MAP, IGNORED, -1, 0, 0, 1]]
        if kind == "record":
            inner = [row for field in tree["fields"] for row in self._skipped(field["type"], depth + 1)]
            return _with_rows(SKIPPED_RECORD, IGNORED, 0, inner)
        inner = self._skipped(tree["items"] if kind == "array" else tree["values"], depth + 1)
        return _with_rows(SKIPPED_ARRAY if kind == "array" else SKIPPED_MAP, IGNORED, 0, inner)


def _with_rows(kind: int, slot: int, number: int, inner: Rows) -> Rows:
    return [[kind, slot, -1, number, 0, 1 + len(inner)], *inner]
