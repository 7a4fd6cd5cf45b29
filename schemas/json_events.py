"""Events to messages: JSON as producers may post it, and Avro in Confluent's wire format."""

import io
import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fastavro

from schemas.avro_decoder import USER_EVENT_KINDS
from schemas.avro_decoder_kernel import MAX_ID_BYTES
from schemas.events import PRODUCT_FIELDS
from schemas.records import MAGIC
from schemas.registry import SchemaRegistry
from schemas.similar_names import allowed, did_you_mean
from schemas.validate import EARLIEST_MS, MAX_PRICE, MAX_QUANTITY, is_unicode

TEXTS = ("event_id", "user", "session", "item", "category", "brand", "country", "order_id", "query", "title",
         "image_url", "seller", "request_id", "source", "arm", "anchor", "generation")  # fmt: skip
NUMBERS = {
    "price": (0.0, MAX_PRICE),
    "discount": (-MAX_PRICE, MAX_PRICE),
    "quantity": (1e-9, MAX_QUANTITY),
    "stars": (1.0, 5.0),
    "margin": (-1e6, 1e6),
    "propensity": (0.0, 1.0),
}
LONG_TEXTS, MAX_LONG_BYTES = ("title", "image_url", "query"), 8 * MAX_ID_BYTES
INTEGERS = {"stock": (-(2**31), 2**53), "position": (0, 100_000)}
LINE_FIELDS = ("item", "quantity", "price", "discount", "category", "brand")
FIELDS = {
    "interaction": ("event_id", "user", "session", "item", "price", "category", "brand", "country", "context"),
    "purchases": ("event_id", "user", "session", "order_id", "country", "context", "lines", *LINE_FIELDS),
    "product-updates": ("item", *PRODUCT_FIELDS, "replace"),
    "impressions": ("event_id", "request_id", "user", "session", "item", "position", "source", "arm", "propensity",
                    "anchor", "generation"),
    "erasures": ("event_id", "user"),
}  # fmt: skip
TOPIC_OF_TYPE = {
    "view": "product-views",
    "purchase": "purchases",
    "rating": "ratings",
    "product": "product-updates",
    "product_gone": "product-updates",
    "impression": "impressions",
    "erasure": "erasures",
    **{name: "user-events" for name in USER_EVENT_KINDS if name != "view"},
}
REQUIRED = {
    "product-views": ("item",),
    "ratings": ("item", "stars"),
    "product-updates": ("item",),
    "impressions": ("request_id", "item", "position", "source"),
    "erasures": ("user",),
}


class InvalidEvent(Exception):
    """An event that cannot be taken: which field, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def encode(topic: str, record: Mapping[str, Any], registry: SchemaRegistry) -> bytes:
    """Return the record as `0 · schema id, big-endian u32 · Avro body`."""
    schema_id = registry.id_for(topic)
    out = io.BytesIO()
    out.write(struct.pack(">BI", MAGIC, schema_id))
    fastavro.schemaless_writer(out, dict(registry.schema(schema_id).parsed), dict(record))
    return out.getvalue()


def message_key(topic: str, record: Mapping[str, Any]) -> bytes:
    """Return what a message is partitioned by: the item of a product, else the user or session."""
    name = (
        record["item"]
        if topic in ("products", "product-updates")
        else record.get("user") or record.get("session") or ""
    )
    return str(name).encode()


def event_from_json(
    event: Mapping[str, Any], now_ms: int, max_future_ms: int | None = None
) -> tuple[str, dict[str, Any], bytes]:
    """Return (topic, record, key) of an event as JSON.

    `type` says what it is: `view`, `purchase`, `rating`, `product`, `product_gone`,
    `impression`, `erasure` or a kind of user event. `ts_ms` (or `ts`, ISO 8601)
    defaults to `now_ms`, and is at most `max_future_ms` later. Raises InvalidEvent naming the field.
    """
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in TOPIC_OF_TYPE:
        meant = did_you_mean(str(kind), TOPIC_OF_TYPE)
        raise InvalidEvent("type", f"must be one of {', '.join(sorted(TOPIC_OF_TYPE))}; got {kind!r}{meant}")
    topic = TOPIC_OF_TYPE[kind]
    record: dict[str, Any] = {"ts_ms": _time(event, now_ms, max_future_ms)}
    allowed = FIELDS.get(topic, FIELDS["interaction"])
    allowed += {"user-events": ("query",), "ratings": ("stars",)}.get(topic, ())
    if kind == "product_gone":
        allowed = ("item",)
    _check_names(event, (*allowed, "type", "ts_ms", "ts"), f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}")
    if topic == "purchases":
        record["lines"] = _lines(event)
        allowed = tuple(name for name in allowed if name not in ("lines", *LINE_FIELDS))
    record |= _product(event, kind) if topic == "product-updates" else _values(event, allowed)
    if "event_id" in allowed:
        _need(record, ("event_id",))
    if topic == "user-events":
        record["kind"] = kind
        if kind != "search":
            _need(record, ("item",))
    _need(record, REQUIRED.get(topic, ()))
    if topic not in ("product-updates", "impressions") and not record.get("user") and not record.get("session"):
        raise InvalidEvent("user", "is needed, or a session for an anonymous visitor")
    return topic, record, message_key(topic, record)


def _product(event: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what a change of a product names: values, and which fields that are null it clears."""
    if kind == "product_gone":
        return {**_values(event, ("item",)), "change": "gone"}
    replace = event.get("replace")
    if replace is not None and not isinstance(replace, bool):
        raise InvalidEvent("replace", f"must be true or false; got {replace!r:.60}")
    record = _values(event, ("item", *PRODUCT_FIELDS))
    if replace:
        return {**record, "change": "replace"}
    return {**record, "change": "merge", "cleared": [name for name in PRODUCT_FIELDS if event.get(name, "") is None]}


def _need(record: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if record.get(name) is None:
            raise InvalidEvent(name, "is needed")


def _check_names(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in given:
        if name not in names:
            raise InvalidEvent(name, f"is not a field of {what}{allowed(name, names, 'its fields are')}")


def _time(event: Mapping[str, Any], now_ms: int, max_future_ms: int | None) -> int:
    if "ts" in event and "ts_ms" in event:
        raise InvalidEvent("ts", "cannot be given beside ts_ms: one of them says when it happened")
    if "ts" in event:
        name = "ts"
        try:
            moment = datetime.fromisoformat(event["ts"])
        except (TypeError, ValueError):
            raise InvalidEvent("ts", f"must be ISO 8601, e.g. 2026-11-01T12:00:00Z; got {event['ts']!r:.60}") from None
        ts_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    else:
        name, ts_ms = "ts_ms", event.get("ts_ms", now_ms)
    if isinstance(ts_ms, bool) or not isinstance(ts_ms, int) or not EARLIEST_MS <= ts_ms < 2**53:
        what = "after the year 2000" if name == "ts" else "milliseconds since 1970, after the year 2000"
        raise InvalidEvent(name, f"must be {what}; got {event[name]!r:.60}")
    if max_future_ms is not None and ts_ms > now_ms + max_future_ms:
        ahead = f"{(ts_ms - now_ms) / 1000:,.0f} s ahead of the clock"
        raise InvalidEvent(name, f"is {ahead}; at most {max_future_ms / 1000:,.0f} s are taken (max_future_s)")
    return ts_ms


def _lines(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    beside = [name for name in LINE_FIELDS if name in event]
    if "lines" in event and beside:
        raise InvalidEvent(beside[0], "cannot be given beside lines: each line has its own")
    lines = event.get("lines", [{name: event[name] for name in beside}])
    if not isinstance(lines, list) or not lines:
        raise InvalidEvent("lines", "must be a list with at least one line")
    read = []
    for index, line in enumerate(lines):
        where = f"lines[{index}]." if "lines" in event else ""
        if not isinstance(line, Mapping):
            raise InvalidEvent(f"lines[{index}]", "must be an object")
        try:
            _check_names(line, LINE_FIELDS, "a line")
            values = _values(line, LINE_FIELDS)
            _need(values, ("item",))
        except InvalidEvent as error:
            raise InvalidEvent(where + error.field, error.message) from None
        read.append({"quantity": 1.0, **values})
    return read


def _values(event: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _value(name, event[name]) for name in names if event.get(name) is not None}


def _value(name: str, value: Any) -> Any:
    if name in TEXTS:
        most = MAX_LONG_BYTES if name in LONG_TEXTS else MAX_ID_BYTES
        if not isinstance(value, str) or not value:
            raise InvalidEvent(name, f"must be a text of 1 to {most} bytes; got {value!r:.60}")
        if not is_unicode(value):
            raise InvalidEvent(name, "is not valid Unicode")
        if len(value.encode()) > most:
            raise InvalidEvent(name, f"must be a text of 1 to {most} bytes; got {len(value.encode())} bytes")
        return value
    if name in NUMBERS:
        low, high = NUMBERS[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
            or math.isnan(value)
        ):
            raise InvalidEvent(name, f"must be a number within {low:g} and {high:g}; got {value!r:.60}")
        return float(value)
    if name in INTEGERS:
        least, most = INTEGERS[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidEvent(name, f"must be a whole number within {least} and {most}; got {value!r:.60}")
        return value
    may_be = str | None if name == "attributes" else str  # an attribute that is null is cleared
    if not isinstance(value, Mapping) or not all(
        isinstance(k, str) and isinstance(v, may_be) for k, v in value.items()
    ):
        raise InvalidEvent(name, "must be an object of texts")
    for key, text in value.items():
        if not is_unicode(key) or not is_unicode(text or ""):
            raise InvalidEvent(f"{name}.{key}", "is not valid Unicode")
    return dict(value)
