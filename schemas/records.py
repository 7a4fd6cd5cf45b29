"""Messages as records, whatever schema they were written with: how each is read is found out once and kept."""

import io
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import fastavro
from fastavro import _read_py

from schemas.decoder_program import NotCompiled, Program, compile_schema
from schemas.registry import Schema, SchemaRegistry, UnknownSchema, current_schema
from schemas.resolve import Resolved, UnreadableSchema, resolve, type_name

MAGIC = 0
HEADER = 5
KEY = "key of products"
ADDRESS = re.compile(" at 0x[0-9a-f]+")
"""Of an object in fastavro's messages: it differs each time, and equal messages are refused with equal words."""
KEY_SCHEMA = {"type": "record", "name": "Key", "fields": [{"name": "item", "type": "string", "aliases": ["id", "key"]}]}


class Malformed(ValueError):
    """Bytes that are no record of their schema."""


class Reading(NamedTuple):
    """How messages of one schema id are read on one topic."""

    schema: Schema
    resolved: Resolved | None
    program: Program | None
    """For the kernel; None: fastavro reads them."""
    wrong: str = ""
    """Why they cannot be read, where `resolved` is None."""


_readings: dict[tuple[int, str], Reading] = {}


def reading_of(schema_id: int, topic: str, registry: SchemaRegistry) -> Reading:
    """Return how messages with this schema id are read on a topic.

    Raises UnknownSchema, UnreadableSchema, RegistryUnavailable.
    """
    schema = registry.schema(schema_id)
    known = _readings.get((schema_id, topic))
    if known is None or known.schema is not schema:
        known = _readings[schema_id, topic] = _find_out(schema_id, schema, topic)
    if known.resolved is None:
        raise UnreadableSchema(f"schema id {schema_id}: {known.wrong}")
    return known


def _find_out(schema_id: int, schema: Schema, topic: str) -> Reading:
    if schema.topic and schema.topic != topic:
        raise UnknownSchema(f"schema id {schema_id} belongs to {schema.topic!r}, not to {topic!r}")
    kind = schema.parsed.get("type") if isinstance(schema.parsed, Mapping) else schema.parsed
    if topic != KEY and not isinstance(kind, list) and kind not in ("record", "error"):
        raise UnknownSchema(f"schema id {schema_id} is {type_name(schema.parsed)!r}, which is no record of {topic!r}")
    if topic == KEY:
        ours: Any = KEY_SCHEMA if kind in ("record", "error") else "string"
    else:
        ours = current_schema(topic)
    try:
        resolved = resolve(schema.parsed, ours, topic, schema.named)
    except UnreadableSchema as error:
        return Reading(schema, None, None, str(error))
    try:
        program = compile_schema(resolved)
    except NotCompiled:
        program = None
    return Reading(schema, resolved, program)


def read_body(resolved: Resolved, body: bytes) -> Any:
    """Return the record that an Avro body is; raises Malformed, UnreadableSchema."""
    stream = io.BytesIO(body)
    # A type that contains itself may be nested a million deep: fastavro's C code would take the whole process with it.
    read = _read_py.schemaless_reader if resolved.recursive else fastavro.schemaless_reader
    try:
        record = read(stream, resolved.parsed, None)
    except UnreadableSchema:
        raise
    except Exception as error:  # fastavro raises whatever the broken bytes lead to
        why = ADDRESS.sub("", repr(error))
        raise Malformed(f"not an Avro record of its schema: {why}"[:300]) from error
    left = len(body) - stream.tell()
    if left:
        raise Malformed(f"{left} bytes follow the record")
    return record


def read_value(value: bytes, topic: str, registry: SchemaRegistry) -> Any:
    """Return the record that a framed message is.

    Raises Malformed, UnknownSchema, UnreadableSchema, RegistryUnavailable.
    """
    if len(value) < HEADER or value[0] != MAGIC:
        raise Malformed("the message does not start with magic byte 0 and a schema id")
    resolved = reading_of(int.from_bytes(value[1:HEADER], "big"), topic, registry).resolved
    assert resolved is not None  # else it would have raised
    return read_body(resolved, value[HEADER:])
