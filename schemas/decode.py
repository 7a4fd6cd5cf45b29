"""Messages to columns: the kernel for interactions, fastavro for the rest and for what the kernel refuses."""

import io
from collections.abc import Mapping
from typing import Any, Protocol

import fastavro
import numpy as np
import numpy.typing as npt

from schemas.events import (
    COLUMN_DTYPE,
    TOPICS,
    BadMessage,
    Columns,
    Decoded,
    Erasure,
    Kind,
    ProductChange,
)
from schemas.ids import event_domain, hash_event_id, hash_id, hash_ids, hash_visitor, id_keys
from schemas.kernel import MAX_ID_BYTES, OK, TOO_LONG, read_messages
from schemas.program import NotCompiled, compile_schema
from schemas.registry import Schema, SchemaRegistry, UnknownSchema
from schemas.validate import EARLIEST_MS, MAX_PRICE, Limits, refuse

__all__ = ["Limits", "decode"]

MAGIC = 0
HEADER = 5
TOPIC_KINDS = {"product-views": Kind.VIEW, "user-events": 0, "purchases": Kind.PURCHASE, "ratings": Kind.RATING}
USER_EVENT_KINDS = {kind.name.lower(): int(kind) for kind in Kind if kind not in (Kind.PURCHASE, Kind.RATING)}
KIND_CODES = np.array(list(USER_EVENT_KINDS.values()), np.uint8)

_programs: dict[int, tuple[Schema, npt.NDArray[np.int64] | None]] = {}


class Messages(Protocol):
    """What decoding reads of a RawBatch (`flows.log`)."""

    @property
    def streams(self) -> tuple[str, ...]: ...
    @property
    def stream(self) -> npt.NDArray[np.int32]: ...
    @property
    def payload(self) -> npt.NDArray[np.uint8]: ...
    @property
    def bounds(self) -> npt.NDArray[np.int64]: ...
    @property
    def tombstones(self) -> dict[int, bytes]: ...


def decode(raw: Messages, registry: SchemaRegistry, now_ms: int, limits: Limits) -> Decoded:
    """Return the batch as columns; a message that cannot be read or cannot be true is in `bad` and nowhere else."""
    decoding = _Decoding(raw, registry, limits)
    topics = np.array([_topic_index(stream) for stream in raw.streams], np.int64)[raw.stream]
    for index in np.unique(topics[topics >= 0]).tolist():
        decoding.read_topic(TOPICS[index], np.flatnonzero(topics == index).astype(np.int32))
    rows = np.concatenate(decoding.rows) if decoding.rows else np.zeros(0, COLUMN_DTYPE)
    refused = refuse(rows, now_ms, limits)
    if refused:
        rows = rows[~np.isin(rows["message"], [bad.message for bad in refused])]
    if len(decoding.rows) > 1:
        rows = rows[np.lexsort((rows["line"], rows["message"]))]
    bad = sorted(decoding.bad + refused, key=lambda one: one.message)
    products = sorted(decoding.products, key=lambda change: change.message)
    return Decoded(rows, products, decoding.erasures, bad, decoding.n_impressions)


def _topic_index(stream: str) -> int:
    topic = stream.rpartition(":")[0]
    return TOPICS.index(topic) if topic in TOPICS else -1


class _Decoding:
    """One batch being decoded."""

    def __init__(self, raw: Messages, registry: SchemaRegistry, limits: Limits) -> None:
        self._raw, self._registry, self._limits = raw, registry, limits
        self.rows: list[Columns] = []
        self.products: list[ProductChange] = []
        self.erasures: list[Erasure] = []
        self.bad: list[BadMessage] = []
        self.n_impressions = 0

    def read_topic(self, topic: str, messages: npt.NDArray[np.int32]) -> None:
        raw = self._raw
        if topic == "products" and raw.tombstones:
            gone = np.array([message in raw.tombstones for message in messages.tolist()])
            for message in messages[gone].tolist():
                self._product_gone(message)
            messages = messages[~gone]
        starts, ends = raw.bounds[messages], raw.bounds[messages + 1]
        sizes = ends - starts
        self._refuse(messages[sizes > self._limits.max_message_bytes], "too_large", "the message is too large")
        framed = (sizes <= self._limits.max_message_bytes) & (sizes >= HEADER)
        framed[framed] = raw.payload[starts[framed]] == MAGIC
        unframed = ~framed & (sizes <= self._limits.max_message_bytes)
        self._refuse(messages[unframed], "bad_magic", "the message does not start with magic byte 0 and a schema id")
        messages, starts = messages[framed], starts[framed]
        ids = np.zeros(len(messages), np.int64)
        for k in range(1, HEADER):
            ids = ids << 8 | raw.payload[starts + k]
        for schema_id in np.unique(ids).tolist():
            self._read_schema(topic, schema_id, messages[ids == schema_id])

    def _read_schema(self, topic: str, schema_id: int, messages: npt.NDArray[np.int32]) -> None:
        try:
            schema = self._registry.schema(schema_id)
        except UnknownSchema as error:
            self._refuse(messages, "unknown_schema", str(error))
            return
        if schema.topic != topic:
            self._refuse(
                messages, "unknown_schema", f"schema id {schema_id} belongs to {schema.topic!r}, not to {topic!r}"
            )
        elif topic == "impressions":
            self.n_impressions += len(messages)
        elif topic in ("products", "erasures"):
            for message in messages.tolist():
                self._read_record(topic, schema, message)
        else:
            self._read_interactions(topic, schema_id, schema, messages)

    def _read_interactions(self, topic: str, schema_id: int, schema: Schema, messages: npt.NDArray[np.int32]) -> None:
        program = _program(schema_id, schema)
        if program is None:
            refused = messages
        else:
            rows, status = self._run_kernel(topic, messages, program)
            self.rows.append(rows)
            self._refuse(
                messages[status == TOO_LONG], "id_too_long", f"a text that names something exceeds {MAX_ID_BYTES} bytes"
            )
            refused = messages[(status != OK) & (status != TOO_LONG)]
        for message in refused.tolist():  # the reference has the last word on what the kernel refuses
            record = self._record(schema, message)
            if record is not None:
                rows_of = _rows_of(topic, record, message, self._raw)
                if isinstance(rows_of, BadMessage):
                    self.bad.append(rows_of)
                else:
                    self.rows.append(rows_of)

    def _run_kernel(
        self, topic: str, messages: npt.NDArray[np.int32], program: npt.NDArray[np.int64]
    ) -> tuple[Columns, npt.NDArray[np.uint8]]:
        room = len(messages) * (8 if topic == "purchases" else 1) + 64
        while True:
            rows, status = np.zeros(room, COLUMN_DTYPE), np.empty(len(messages), np.uint8)
            n_rows, done = read_messages(
                self._raw.payload, self._raw.bounds, messages, program, int(TOPIC_KINDS[topic]),
                hash_ids(list(USER_EVENT_KINDS)), KIND_CODES, id_keys(), event_domain(topic), rows, status,
            )  # fmt: skip
            if done == len(messages):
                return rows[:n_rows], status
            room *= 4

    def _read_record(self, topic: str, schema: Schema, message: int) -> None:
        record = self._record(schema, message)
        if record is None:
            return
        name = "item" if topic == "products" else "user"
        text, ts_ms = record.get(name) or "", record.get("ts_ms") or 0
        price = record.get("price")
        if not text:
            self.bad.append(BadMessage(message, "empty_id", f"{name} is empty"))
        elif len(text.encode()) > MAX_ID_BYTES:
            self.bad.append(BadMessage(message, "id_too_long", f"{name} exceeds {MAX_ID_BYTES} bytes"))
        elif ts_ms < EARLIEST_MS:
            self.bad.append(BadMessage(message, "bad_time", "ts_ms is before 2000; it counts milliseconds"))
        elif price is not None and not 0 <= price <= MAX_PRICE:
            self.bad.append(BadMessage(message, "bad_price", f"price is not within 0 and {MAX_PRICE:g}"))
        elif topic == "products":
            product = {key: value for key, value in record.items() if key not in ("item", "ts_ms")}
            self.products.append(ProductChange(message, text, ts_ms, product))
        else:
            self.erasures.append(Erasure(message, text, ts_ms))

    def _product_gone(self, message: int) -> None:
        try:
            item = self._raw.tombstones[message].decode()
        except UnicodeDecodeError:
            item = ""
        if item:
            self.products.append(ProductChange(message, item, 0, None))
        else:
            self.bad.append(BadMessage(message, "empty_id", "a message without a value needs the item id as its key"))

    def _record(self, schema: Schema, message: int) -> dict[str, Any] | None:
        body = self._raw.payload[self._raw.bounds[message] + HEADER : self._raw.bounds[message + 1]].tobytes()
        stream = io.BytesIO(body)
        try:
            record = fastavro.schemaless_reader(stream, dict(schema.parsed), None)
            left = len(body) - stream.tell()
        except Exception as error:  # fastavro raises whatever the broken bytes lead to
            self.bad.append(BadMessage(message, "malformed", f"not an Avro record of its schema: {error!r}"[:300]))
            return None
        if left or not isinstance(record, dict):
            self.bad.append(BadMessage(message, "malformed", f"{left} bytes follow the record"))
            return None
        return record

    def _refuse(self, messages: npt.NDArray[np.int32], reason: str, detail: str) -> None:
        self.bad += [BadMessage(message, reason, detail) for message in messages.tolist()]


def _program(schema_id: int, schema: Schema) -> npt.NDArray[np.int64] | None:
    known = _programs.get(schema_id)
    if known is None or known[0] is not schema:
        try:
            program = compile_schema(schema.parsed)
        except NotCompiled:
            program = None
        known = _programs[schema_id] = schema, program
    return known[1]


def _rows_of(topic: str, record: Mapping[str, Any], message: int, raw: Messages) -> Columns | BadMessage:
    """Return a record that fastavro read as rows, as the kernel would have made them."""
    lines = [record] if topic != "purchases" else record.get("lines") or []
    if not lines:
        return BadMessage(message, "malformed", "the order has no line")
    body = raw.payload[raw.bounds[message] : raw.bounds[message + 1]].tobytes()
    rows = np.zeros(len(lines), COLUMN_DTYPE)
    for k, line in enumerate(lines):
        texts = {name: line.get(name) or "" for name in ("item", "category", "brand")}
        texts |= {name: record.get(name) or "" for name in ("event_id", "user", "session", "kind", "country")}
        if max(len(text.encode()) for text in texts.values()) > MAX_ID_BYTES:
            return BadMessage(message, "id_too_long", f"a text that names something exceeds {MAX_ID_BYTES} bytes")
        price, item = line.get("price"), texts["item"].encode()
        kind = TOPIC_KINDS[topic] or USER_EVENT_KINDS.get(texts["kind"], 0)
        value = line.get("quantity", 1.0) if topic == "purchases" else record.get("stars", 1.0)
        with np.errstate(over="ignore"):  # a number too large for the column is infinite, as the kernel makes it
            rows[k] = (
                message, k, kind, hash_event_id(texts["event_id"], topic),
                hash_visitor(texts["user"], texts["session"]), hash_id(texts["item"]),
                record.get("ts_ms") or 0, value, np.nan if price is None else np.inf if price != price else price,
                hash_id(texts["category"]), hash_id(texts["brand"]), hash_id(texts["country"]),
                raw.bounds[message] + body.find(item) if item else 0, len(item),
            )  # fmt: skip
    return rows
