"""Writer schemas compiled to small programs, so that one kernel reads every version of an event.

A program is an int64 array (n, 3): type, slot, position of null in the union (-1:
not a union). Slot IGNORED reads a field past. An array of records is one entry of
type LINES whose program follows behind it; its slot holds the number of entries.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

TEXT, INTEGER, DOUBLE, FLOAT, BOOLEAN, TEXT_MAP, LINES = range(7)
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
TYPES = {
    "string": TEXT,
    "bytes": TEXT,
    "int": INTEGER,
    "long": INTEGER,
    "double": DOUBLE,
    "float": FLOAT,
    "boolean": BOOLEAN,
}
NUMBERS = (INTEGER, DOUBLE, FLOAT)


class NotCompiled(Exception):
    """The schema has a shape the kernel does not read; fastavro reads it instead."""


def compile_schema(schema: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return the program of an event's writer schema; raises NotCompiled."""
    program: list[tuple[int, int, int]] = []
    lines_seen = False
    for field in schema["fields"]:
        lines = field["type"]
        if isinstance(lines, Mapping) and lines.get("type") == "array" and isinstance(lines["items"], Mapping):
            inner = [_entry(part) for part in lines["items"].get("fields", [])]
            if field["name"] != "lines" or not inner:
                raise NotCompiled(field["name"])
            program.append((LINES, len(inner), -1))
            program += inner
            lines_seen = True
            continue
        entry = _entry(field)
        if lines_seen and entry[1] != IGNORED:
            raise NotCompiled(f"{field['name']} comes after the lines that need it")
        program.append(entry)
    return np.array(program, np.int64)


def _entry(field: Mapping[str, Any]) -> tuple[int, int, int]:
    avro, null_at = field["type"], -1
    if isinstance(avro, list):
        if len(avro) != 2 or "null" not in avro:
            raise NotCompiled(field["name"])
        null_at = avro.index("null")
        avro = avro[1 - null_at]
    if isinstance(avro, Mapping) and avro.get("type") in TYPES:
        avro = avro["type"]
    if isinstance(avro, Mapping) and avro.get("type") == "map" and avro["values"] == "string":
        return TEXT_MAP, IGNORED, null_at
    if not isinstance(avro, str) or avro not in TYPES:
        raise NotCompiled(field["name"])
    kind, slot = TYPES[avro], SLOTS.get(field["name"], IGNORED)
    if slot != IGNORED and (slot < N_TEXTS) != (kind == TEXT):
        raise NotCompiled(field["name"])
    if slot >= N_TEXTS and kind not in NUMBERS:
        raise NotCompiled(field["name"])
    return kind, slot, null_at
