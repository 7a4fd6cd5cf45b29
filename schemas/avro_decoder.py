"""Messages to columns: the kernel for interactions, fastavro for the rest and for what the kernel refuses."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.avro_decoder_kernel import MAX_ID_BYTES, OK, TOO_LONG, read_messages
from schemas.decoder_program import Program
from schemas.events import (
    ATTRIBUTE,
    COLUMN_DTYPE,
    PRODUCT_FIELDS,
    TOPICS,
    BadMessage,
    Change,
    Columns,
    Decoded,
    Erasure,
    Kind,
    ProductChange,
)
from schemas.ids import NoIdKey, event_domain, hash_event_id, hash_id, hash_ids, hash_visitor, id_keys
from schemas.item_key import item_of_key
from schemas.records import HEADER, MAGIC, Malformed, read_body, reading_of
from schemas.registry import RegistryUnavailable, SchemaRegistry, UnknownSchema
from schemas.resolve import Resolved, UnreadableSchema
from schemas.validate import EARLIEST_MS, MAX_PRICE, Limits, refuse

__all__ = ["Limits", "decode"]

TOPIC_KINDS = {"product-views": Kind.VIEW, "user-events": 0, "purchases": Kind.PURCHASE, "ratings": Kind.RATING}
USER_EVENT_KINDS = {kind.name.lower(): int(kind) for kind in Kind if kind not in (Kind.PURCHASE, Kind.RATING)}
KIND_CODES = np.array(list(USER_EVENT_KINDS.values()), np.uint8)
CHANGES = ("merge", "replace", "gone")
"""What a message on `product-updates` may do."""


class Messages(Protocol):
    """What decoding reads of a RawBatch (`flows.log.contract`): plain fields, read once a batch."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, `topic:partition`."""

    @property
    def stream(self) -> npt.NDArray[np.int32]:
        """Index into `streams` of each message."""

    @property
    def payload(self) -> npt.NDArray[np.uint8]:
        """The values, one behind the other."""

    @property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Where each value begins, and the last one ends."""

    @property
    def tombstones(self) -> dict[int, bytes]:
        """Keys of messages without a value, by index."""


def decode(raw: Messages, registry: SchemaRegistry, now_ms: int, limits: Limits) -> Decoded:
    """Return the batch as columns; a message that cannot be read or cannot be true is in `bad` and nowhere else.

    That holds for whatever goes wrong with it: where decoding fails, the messages are halved until the culprit is
    alone. Raises RegistryUnavailable.
    """
    extra = bytearray()
    parts = _decode_some(raw, np.arange(len(raw.stream), dtype=np.int32), registry, now_ms, limits, extra)
    found = [rows for part in parts for rows in part.rows]
    rows = np.concatenate(found) if found else np.zeros(0, COLUMN_DTYPE)
    return Decoded(
        rows,
        sorted((change for part in parts for change in part.products), key=lambda change: change.message),
        sorted((erasure for part in parts for erasure in part.erasures), key=lambda erasure: erasure.message),
        sorted((bad for part in parts for bad in part.bad), key=lambda bad: bad.message),
        sum(part.n_impressions for part in parts),
        np.concatenate((raw.payload, np.frombuffer(bytes(extra), np.uint8))) if extra else None,
    )


def _decode_some(
    raw: Messages, messages: npt.NDArray[np.int32], registry: SchemaRegistry, now_ms: int, limits: Limits,
    extra: bytearray,
) -> list["_Decoding"]:  # fmt: skip
    """Return the messages decoded, in several parts where one of them made decoding fail."""
    decoding = _Decoding(raw, registry, limits, extra)
    try:
        decoding.read(messages, now_ms)
        return [decoding]
    except (RegistryUnavailable, NoIdKey):  # no message's failure
        raise
    except Exception as error:
        failure = error
    if len(messages) == 1:
        refused = _Decoding(raw, registry, limits, extra)
        refused.bad.append(BadMessage(int(messages[0]), "decode_failed", f"{failure!r}"[:300], failure))
        return [refused]
    half = len(messages) // 2
    return [
        *_decode_some(raw, messages[:half], registry, now_ms, limits, extra),
        *_decode_some(raw, messages[half:], registry, now_ms, limits, extra),
    ]


def _topic_index(stream: str) -> int:
    topic = stream.rpartition(":")[0]
    return TOPICS.index(topic) if topic in TOPICS else -1


class _Decoding:
    """Messages of a batch being decoded; `extra` takes texts of ids that do not lie in its payload."""

    def __init__(self, raw: Messages, registry: SchemaRegistry, limits: Limits, extra: bytearray) -> None:
        self._raw, self._registry, self._limits, self._extra = raw, registry, limits, extra
        self.rows: list[Columns] = []
        self.products: list[ProductChange] = []
        self.erasures: list[Erasure] = []
        self.bad: list[BadMessage] = []
        self.n_impressions = 0

    def read(self, messages: npt.NDArray[np.int32], now_ms: int) -> None:
        """Decode the messages; what cannot be of them is in `bad`."""
        topics = np.array([_topic_index(stream) for stream in self._raw.streams], np.int64)[self._raw.stream[messages]]
        for index in np.unique(topics[topics >= 0]).tolist():
            self.read_topic(TOPICS[index], messages[topics == index], now_ms)
        if len(self.rows) > 1:
            every = np.concatenate(self.rows)
            self.rows = [every[np.lexsort((every["line"], every["message"]))]]
        for rows in self.rows:
            refused = refuse(rows, now_ms, self._limits)
            if refused:
                self.rows = [rows[~np.isin(rows["message"], [bad.message for bad in refused])]]
                self.bad += refused

    def read_topic(self, topic: str, messages: npt.NDArray[np.int32], now_ms: int) -> None:
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
            self._read_schema(topic, schema_id, messages[ids == schema_id], now_ms)

    def _read_schema(self, topic: str, schema_id: int, messages: npt.NDArray[np.int32], now_ms: int) -> None:
        try:
            reading = reading_of(schema_id, topic, self._registry)
        except UnknownSchema as error:
            self._refuse(messages, "unknown_schema", str(error))
            return
        except UnreadableSchema as error:
            self._refuse(messages, "unreadable_schema", str(error))
            return
        assert reading.resolved is not None  # else it would have raised
        if topic == "impressions":
            self.n_impressions += len(messages)
        elif topic in ("products", "product-updates", "erasures"):
            for message in messages.tolist():
                self._read_record(topic, reading.resolved, message, now_ms)
        else:
            self._read_interactions(topic, reading.resolved, reading.program, messages)

    def _read_interactions(
        self, topic: str, resolved: Resolved, program: Program | None, messages: npt.NDArray[np.int32]
    ) -> None:
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
            record = self._record(resolved, message)
            if record is not None:
                rows_of = self._rows_of(topic, record, message)
                if isinstance(rows_of, BadMessage):
                    self.bad.append(rows_of)
                else:
                    self.rows.append(rows_of)

    def _run_kernel(
        self, topic: str, messages: npt.NDArray[np.int32], program: Program
    ) -> tuple[Columns, npt.NDArray[np.uint8]]:
        room = len(messages) * (8 if topic == "purchases" else 1) + 64
        while True:
            rows, status = np.zeros(room, COLUMN_DTYPE), np.empty(len(messages), np.uint8)
            n_rows, done = read_messages(
                self._raw.payload, self._raw.bounds, messages, program.entries, program.texts, int(TOPIC_KINDS[topic]),
                hash_ids(list(USER_EVENT_KINDS)), KIND_CODES, id_keys(), event_domain(topic), rows, status,
            )  # fmt: skip
            if done == len(messages):
                return rows[:n_rows], status
            room *= 4

    def _read_record(self, topic: str, resolved: Resolved, message: int, now_ms: int) -> None:
        record = self._record(resolved, message)
        if record is None:
            return
        name = "user" if topic == "erasures" else "item"
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
        elif topic == "erasures":
            self.erasures.append(Erasure(message, text, ts_ms))
        elif ts_ms > now_ms + self._limits.max_future_ms:
            # Between the two topics of products the time decides: one from the future would hold until then.
            self.bad.append(BadMessage(message, "future_time", "ts_ms is too far ahead of the clock"))
        elif topic == "products":
            product = {key: value for key, value in record.items() if key not in ("item", "ts_ms")}
            self.products.append(ProductChange(message, text, ts_ms, product))
        else:
            self._product_update(record, message)

    def _product_update(self, record: Mapping[str, Any], message: int) -> None:
        item, ts_ms, change = record["item"], record["ts_ms"], record["change"]
        unknown = [name for name in record["cleared"] if name not in PRODUCT_FIELDS]
        if change not in CHANGES:
            detail = f"change {change!r:.60} is none of {', '.join(CHANGES)}"
            self.bad.append(BadMessage(message, "unknown_kind", detail))
        elif unknown:
            detail = f"cleared: {unknown[0]!r:.60} is none of {', '.join(PRODUCT_FIELDS)}"
            self.bad.append(BadMessage(message, "malformed", detail))
        elif change == "gone":
            self.products.append(ProductChange(message, item, ts_ms, None, Change.REPLACE))
        else:
            given = {name: record[name] for name in PRODUCT_FIELDS if record.get(name) is not None}
            attributes = given.pop("attributes", {})
            if change == "replace":
                kept = {name: text for name, text in attributes.items() if text is not None}
                product = {**given, "attributes": kept} if kept else given
                self.products.append(ProductChange(message, item, ts_ms, product, Change.REPLACE))
            else:
                cleared: dict[str, Any] = dict.fromkeys(record["cleared"])
                changed = {**cleared, **given, **{ATTRIBUTE + name: text for name, text in attributes.items()}}
                self.products.append(ProductChange(message, item, ts_ms, changed, Change.MERGE))

    def _product_gone(self, message: int) -> None:
        try:
            item = item_of_key(self._raw.tombstones[message], self._registry)
        except UnknownSchema as error:
            self.bad.append(BadMessage(message, "unknown_schema", f"the key: {error}"))
        except UnreadableSchema as error:
            self.bad.append(BadMessage(message, "unreadable_schema", f"the key: {error}"))
        except Malformed as error:
            self.bad.append(BadMessage(message, "bad_key", str(error)))
        else:
            if not item:
                detail = "a message without a value needs the item id as its key"
                self.bad.append(BadMessage(message, "empty_id", detail))
            elif len(item.encode()) > MAX_ID_BYTES:
                self.bad.append(BadMessage(message, "id_too_long", f"the key exceeds {MAX_ID_BYTES} bytes"))
            else:
                self.products.append(ProductChange(message, item, 0, None))

    def _record(self, resolved: Resolved, message: int) -> dict[str, Any] | None:
        body = self._raw.payload[self._raw.bounds[message] + HEADER : self._raw.bounds[message + 1]].tobytes()
        try:
            record: dict[str, Any] = read_body(resolved, body)
        except UnreadableSchema as error:
            self.bad.append(BadMessage(message, "unreadable_schema", str(error)))
            return None
        except Malformed as error:
            self.bad.append(BadMessage(message, "malformed", str(error)))
            return None
        return record

    def _refuse(self, messages: npt.NDArray[np.int32], reason: str, detail: str) -> None:
        self.bad += [BadMessage(message, reason, detail) for message in messages.tolist()]

    def _rows_of(self, topic: str, record: Mapping[str, Any], message: int) -> Columns | BadMessage:
        """Return a record that fastavro read as rows, as the kernel would have made them."""
        lines = [record] if topic != "purchases" else record.get("lines") or []
        if not lines:
            return BadMessage(message, "malformed", "the order has no line")
        raw = self._raw
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
                    self._place_of(item, message, body), len(item),
                )  # fmt: skip
        return rows

    def _place_of(self, item: bytes, message: int, body: bytes) -> int:
        """Return where an id's text lies in the payload, or behind it where the message has it in no such form."""
        at = body.find(item) if item else 0
        if at >= 0:
            return int(self._raw.bounds[message]) + at if item else 0
        self._extra += item
        return len(self._raw.payload) + len(self._extra) - len(item)
