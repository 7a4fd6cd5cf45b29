import io
import math
import struct

import fastavro
import numpy as np
import pytest
from helpers.raw_batches import raw_batch
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro_decoder import Limits, decode
from schemas.events import Kind
from schemas.ids import hash_event_id, hash_id, hash_visitor
from schemas.json_events import encode
from schemas.registry import FolderRegistry, Schema

NOW = 1_700_000_000_000
REGISTRY = FolderRegistry()
LIMITS = Limits()

text = st.text(min_size=1, max_size=8)
maybe = st.none() | text
price = st.none() | st.floats(0, 1e6, width=32)
facts = {
    "event_id": text, "ts_ms": st.integers(NOW - 10**9, NOW), "user": maybe, "session": text, "price": price,
    "category": maybe, "brand": maybe, "country": maybe, "context": st.dictionaries(text, text, max_size=2),
}  # fmt: skip
KINDS = ["search", "click", "add_to_cart", "remove_from_cart", "wishlist", "share", "return", "dislike"]
line = st.fixed_dictionaries(
    {"item": text, "quantity": st.floats(1, 9, width=32), "price": price, "discount": st.none(), "category": maybe,
     "brand": maybe}
)  # fmt: skip
records = st.one_of(
    st.tuples(st.just("product-views"), st.fixed_dictionaries({**facts, "item": text})),
    st.tuples(st.just("user-events"), st.fixed_dictionaries({**facts, "item": text, "kind": st.sampled_from(KINDS)})),
    st.tuples(st.just("ratings"), st.fixed_dictionaries({**facts, "item": text, "stars": st.floats(1, 5, width=32)})),
    st.tuples(st.just("purchases"), st.fixed_dictionaries({**facts, "lines": st.lists(line, min_size=1, max_size=4)})),
)


def rows_by_hand(topic, record):
    """The rows a record should become, field by field."""
    for number, part in enumerate(record.get("lines", [record])):
        kind = {"product-views": "view", "purchases": "purchase", "ratings": "rating"}.get(topic, record.get("kind"))
        yield {
            "line": number,
            "kind": int(Kind[kind.upper()]),
            "event_id": hash_event_id(record["event_id"], topic),
            "user": hash_visitor(record["user"], record["session"]),
            "item": hash_id(part["item"]),
            "ts_ms": record["ts_ms"],
            "value": record.get("stars", part.get("quantity", 1.0)),
            "price": math.nan if part["price"] is None else part["price"],
            "category": hash_id(part["category"] or ""),
            "brand": hash_id(part["brand"] or ""),
            "country": hash_id(record["country"] or ""),
        }


def assert_rows(decoded, raw, expected):
    assert len(decoded.interactions) == len(expected)
    for row, (message, item, want) in zip(decoded.interactions, expected, strict=True):
        assert row["message"] == message
        for name, value in want.items():
            assert row[name] == value or (value != value and np.isnan(row[name])), name
        start = int(row["item_start"])
        assert raw.payload[start : start + int(row["item_length"])].tobytes().decode() == item


@given(st.lists(records, max_size=8))
def test_columns_equal_the_records_that_were_encoded(events):
    raw = raw_batch([(topic, encode(topic, record, REGISTRY)) for topic, record in events])
    decoded = decode(raw, REGISTRY, NOW, LIMITS)
    expected = [
        (message, part["item"], want)
        for message, (topic, record) in enumerate(events)
        for part, want in zip(record.get("lines", [record]), rows_by_hand(topic, record), strict=True)
    ]
    assert decoded.bad == []
    assert_rows(decoded, raw, expected)


class Evolved:
    """A registry whose view schema is another version of ours."""

    def __init__(self, change):
        schema = dict(REGISTRY.schema(REGISTRY.id_for("product-views")).parsed)
        schema = {"type": "record", "name": "ProductView", "fields": change(list(schema["fields"]))}
        self.parsed = Schema("product-views", fastavro.parse_schema(schema))

    def id_for(self, topic):
        return 9

    def schema(self, schema_id):
        return self.parsed


EXTRA = {"name": "extra", "type": ["null", "long"], "default": None}
NESTED = {"name": "nested", "type": {"type": "array", "items": "long"}, "default": []}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (lambda fields: [EXTRA, *fields], {"extra": 5}),
        (lambda fields: [*fields, NESTED], {"nested": [1, 2]}),
        (lambda fields: [f for f in fields if f["name"] not in ("brand", "context")], {}),
    ],
)
def test_a_writer_with_more_or_fewer_fields_is_read(change, values):
    record = {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "item": "i", "price": 2.5,
              "category": "c", "brand": None, "country": None, "context": {}}  # fmt: skip
    registry = Evolved(change)
    raw = raw_batch([("product-views", encode("product-views", record | values, registry))])
    assert_rows(decode(raw, registry, NOW, LIMITS), raw, [(0, "i", next(rows_by_hand("product-views", record)))])


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_broken_messages_are_refused_alone_and_nothing_crashes(events, data):
    messages, broken = [], set()
    for index, (topic, record) in enumerate(events):
        value = encode(topic, record, REGISTRY)
        damage = data.draw(st.sampled_from(["none", "cut", "flip", "random", "append"]))
        if damage == "cut":
            value = value[: data.draw(st.integers(0, len(value) - 1))]
        elif damage == "flip":
            at = data.draw(st.integers(0, len(value) - 1))
            value = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
        elif damage == "random":
            value = data.draw(st.binary(max_size=40))
        elif damage == "append":
            value += data.draw(st.binary(min_size=1, max_size=4))
        if damage != "none":
            broken.add(index)
        messages.append((topic, value))
    raw = raw_batch(messages)
    decoded = decode(raw, REGISTRY, NOW, LIMITS)
    with_rows = set(decoded.interactions["message"].tolist())
    refused = {bad.message for bad in decoded.bad}
    assert with_rows | refused == set(range(len(events)))
    assert not with_rows & refused
    assert refused <= broken
    expected = [
        (message, part["item"], want)
        for message, (topic, record) in enumerate(events)
        if message not in broken
        for part, want in zip(record.get("lines", [record]), rows_by_hand(topic, record), strict=True)
    ]
    whole = ~np.isin(decoded.interactions["message"], list(broken))
    assert_rows(type(decoded)(decoded.interactions[whole]), raw, expected)


def view(**changes):
    record = {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "item": "i", "price": None,
              "category": None, "brand": None, "country": None, "context": {}}  # fmt: skip
    return record | changes


def reasons(topic, value, limits=LIMITS):
    decoded = decode(raw_batch([(topic, value)]), REGISTRY, NOW, limits)
    assert len(decoded.interactions) == 0 or not decoded.bad
    return [bad.reason for bad in decoded.bad]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ts_ms": NOW + 3_600_000}, []),
        ({"ts_ms": NOW + 3_600_001}, ["future_time"]),
        ({"ts_ms": 946_684_800_000}, []),
        ({"ts_ms": 946_684_799_999}, ["bad_time"]),
        ({"price": 0.0}, []),
        ({"price": -0.01}, ["bad_price"]),
        ({"price": 1e9}, []),
        ({"price": 1.1e9}, ["bad_price"]),
        ({"price": math.nan}, ["bad_price"]),
        ({"price": math.inf}, ["bad_price"]),
        ({"item": ""}, ["empty_id"]),
        ({"event_id": ""}, ["empty_id"]),
        ({"item": "x" * 256}, []),
        ({"item": "x" * 257}, ["id_too_long"]),
        ({"user": None}, ["no_subject"]),
        ({"user": None, "session": "s"}, []),
        ({"user": "", "session": ""}, ["no_subject"]),
    ],
)
def test_each_impossible_value_has_its_reason(changes, expected):
    assert reasons("product-views", encode("product-views", view(**changes), REGISTRY)) == expected


@pytest.mark.parametrize(
    ("topic", "extra", "expected"),
    [
        ("ratings", {"stars": 1.0}, []),
        ("ratings", {"stars": 0.9}, ["bad_stars"]),
        ("ratings", {"stars": 5.1}, ["bad_stars"]),
        ("user-events", {"kind": "search", "item": None}, []),
        ("user-events", {"kind": "click", "item": None}, ["empty_id"]),
        ("user-events", {"kind": "purchase"}, ["unknown_kind"]),
        ("user-events", {"kind": "stroke"}, ["unknown_kind"]),
        ("purchases", {"lines": []}, ["malformed"]),
        ("purchases", {"lines": [{"item": "a"}, {"item": "b", "quantity": 0.0}]}, ["bad_quantity"]),
        ("purchases", {"lines": [{"item": "a"}, {"item": "b", "price": -1.0}]}, ["bad_price"]),
    ],
)
def test_each_topic_refuses_what_its_own_fields_cannot_be(topic, extra, expected):
    assert reasons(topic, encode(topic, view() | extra, REGISTRY)) == expected


def test_frames_schemas_and_sizes_are_checked():
    good = encode("product-views", view(), REGISTRY)
    assert reasons("product-views", b"\x01" + good[1:]) == ["bad_magic"]
    assert reasons("product-views", good[:4]) == ["bad_magic"]
    assert reasons("product-views", struct.pack(">BI", 0, 77) + good[5:]) == ["unknown_schema"]
    assert reasons("ratings", good) == ["unknown_schema"]
    assert reasons("product-views", good, Limits(max_message_bytes=len(good))) == []
    assert reasons("product-views", good, Limits(max_message_bytes=len(good) - 1)) == ["too_large"]
    bad_text = good.replace(b"\x02u", b"\x02\xff")
    assert reasons("product-views", bad_text) == ["malformed"]


def test_products_erasures_and_impressions_are_told_apart():
    product = {"item": "i", "ts_ms": NOW, "title": "Tea", "price": 3.0}
    shown = {"event_id": "e", "ts_ms": NOW, "request_id": "r", "item": "i", "position": 0, "source": "session"}
    raw = raw_batch(
        [
            ("products", encode("products", product, REGISTRY)),
            ("products", None, b"gone"),
            ("products", None, b""),
            ("erasures", encode("erasures", {"event_id": "e", "ts_ms": NOW, "user": "u"}, REGISTRY)),
            ("impressions", encode("impressions", shown, REGISTRY)),
            ("dead-letters", b"anything"),
        ]
    )
    decoded = decode(raw, REGISTRY, NOW, LIMITS)
    assert [(c.item, c.product and c.product["title"]) for c in decoded.products] == [("i", "Tea"), ("gone", None)]
    assert [e.user for e in decoded.erasures] == ["u"]
    assert decoded.n_impressions == 1
    assert [(b.message, b.reason) for b in decoded.bad] == [(2, "empty_id")]


def test_the_wire_format_is_a_magic_byte_a_schema_id_and_the_avro_body():
    value = encode("product-views", view(price=2.5), REGISTRY)
    assert (
        value.hex()
        == "0000000065" + "0265" + "80a0abfef962" + "020275" + "00" + "0269" + "020000000000000440" + "00" * 4
    )
    body = fastavro.schemaless_reader(io.BytesIO(value[5:]), dict(REGISTRY.schema(101).parsed), None)
    assert body["item"] == "i"
