"""A shop's own schemas: each legal way of writing our fields gives our rows, by the kernel and by fastavro alike."""

import datetime
import io
import math
import struct
import uuid
from decimal import Decimal

import fastavro
import numpy as np
import pytest
from helpers.raw_batches import raw_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import records
from schemas.avro_decoder import Limits, decode
from schemas.ids import hash_id
from schemas.registry import FolderRegistry, Schema, current_schema

NOW = 1_700_000_000_000
MOMENT = datetime.datetime.fromtimestamp(NOW / 1000, datetime.UTC)
LOCAL = MOMENT.replace(tzinfo=None)
SOME_ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
LIMITS = Limits()


class OneSchema:
    """A registry with one schema, the shop's own."""

    def __init__(self, schema, named=None):
        self.held = Schema("", schema, named or {})

    def knows(self, topic):
        return True

    def id_for(self, topic):
        return 9

    def schema(self, schema_id):
        return self.held


def framed(schema, record, named=None):
    out = io.BytesIO()
    out.write(struct.pack(">BI", 0, 9))
    defined = {}
    for other in (named or {}).values():
        fastavro.parse_schema(other, defined)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema, defined), record)
    return out.getvalue()


def shop_schema(topic, **changed):
    """Our schema under the shop's name, with some fields' types changed; a type None leaves the field out."""
    fields = []
    for field in current_schema(topic)["fields"]:
        kind = changed.get(field["name"], field["type"])
        if kind is not None:
            fields.append({"name": field["name"], "type": kind})
    return {"type": "record", "name": "com.shop.tracking.Thing", "fields": fields}


BASE = {
    "product-views": {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "item": "i", "price": 2.5,
                      "category": "c", "brand": "b", "country": "DE", "context": {"a": "b"}},
    "user-events": {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "kind": "add_to_cart", "item": "i",
                    "query": None, "price": 2.5, "category": "c", "brand": "b", "country": "DE", "context": {}},
    "ratings": {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "item": "i", "stars": 4.0, "price": 2.5,
                "category": "c", "brand": "b", "country": "DE", "context": {}},
    "purchases": {"event_id": "e", "ts_ms": NOW, "user": "u", "session": None, "order_id": "o", "country": "DE",
                  "context": {}, "lines": [{"item": "i", "quantity": 2.0, "price": 2.5, "discount": None,
                                            "category": "c", "brand": "b"}]},
    "products": {"item": "i", "ts_ms": NOW, "title": "Tea", "category": "c", "brand": "b", "price": 2.5, "stock": 3,
                 "image_url": None, "seller": "s", "margin": 0.25, "attributes": {"colour": "red"}},
    "erasures": {"event_id": "e", "ts_ms": NOW, "user": "u"},
}  # fmt: skip


def read(topic, schema, record, kernel=True, named=None):
    """Return (decoded, batch) of one message that the shop wrote."""
    raw = raw_batch([(topic, framed(schema, record, named))])
    registry = OneSchema(schema, named)
    if not kernel:
        reading = records.reading_of(9, topic, registry)
        records._readings[9, topic] = reading._replace(program=None)
    return decode(raw, registry, NOW, LIMITS), raw


def ours(topic, **changes):
    """What our own schema gives for the record."""
    registry = FolderRegistry()
    out = io.BytesIO()
    schema_id = registry.id_for(topic)
    out.write(struct.pack(">BI", 0, schema_id))
    fastavro.schemaless_writer(out, dict(registry.schema(schema_id).parsed), BASE[topic] | changes)
    raw = raw_batch([(topic, out.getvalue())])
    return decode(raw, registry, NOW, LIMITS), raw


def assert_same(one, other):
    (a, raw_a), (b, raw_b) = one, other
    assert (a.bad, a.products, a.erasures) == (b.bad, b.products, b.erasures)
    assert len(a.interactions) == len(b.interactions)
    for row_a, row_b in zip(a.interactions, b.interactions, strict=True):
        for name in a.interactions.dtype.names:
            if name != "item_start":
                assert row_a[name] == row_b[name] or (math.isnan(row_a[name]) and math.isnan(row_b[name])), name
        texts = []
        for row, decoded, raw in ((row_a, a, raw_a), (row_b, b, raw_b)):
            payload = raw.payload if decoded.payload is None else decoded.payload
            start = int(row["item_start"])
            texts.append(payload[start : start + int(row["item_length"])].tobytes())
        assert texts[0] == texts[1]
        assert hash_id(texts[0].decode()) == row_a["item"]


def enum(*symbols, name="Listed"):
    return {"type": "enum", "name": name, "symbols": list(symbols)}


def logical(kind, means, **more):
    return {"type": kind, "logicalType": means, **more}


DECIMAL = logical("bytes", "decimal", precision=12, scale=2)
FIXED_DECIMAL = logical("fixed", "decimal", precision=12, scale=2, name="Money", size=6)
UUID_FIXED = {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}

WAYS = [
    ("ts_ms", "long", NOW),
    ("ts_ms", logical("long", "timestamp-millis"), MOMENT),
    ("ts_ms", logical("long", "timestamp-micros"), MOMENT),
    ("ts_ms", logical("long", "timestamp-nanos"), NOW * 10**6),
    ("ts_ms", logical("long", "local-timestamp-millis"), LOCAL),
    ("ts_ms", logical("long", "local-timestamp-micros"), LOCAL),
    ("ts_ms", ["null", logical("long", "timestamp-micros")], MOMENT),
    ("user", "string", "u"),
    ("user", "bytes", b"u"),
    ("user", ["string", "null"], "u"),
    ("user", ["null", "bytes", "long", "string"], "u"),
    ("country", enum("AT", "DE"), "DE"),
    ("country", ["null", enum("AT", "DE")], "DE"),
    ("context", {"type": "map", "values": "bytes"}, {"a": b"b"}),
    ("context", {"type": "map", "values": ["null", "string"]}, {"a": "b"}),
]
PRICES = [
    ("price", "int", 3, 3.0), ("price", "long", 3, 3.0), ("price", "float", 2.5, 2.5), ("price", "double", 2.5, 2.5),
    ("price", ["null", "int"], 3, 3.0), ("price", ["double", "null"], 2.5, 2.5), ("price", "null", None, None),
    ("price", DECIMAL, Decimal("12.34"), 12.34), ("price", FIXED_DECIMAL, Decimal("12.34"), 12.34),
    ("price", ["null", DECIMAL], Decimal("0.01"), 0.01), ("price", ["null", "string", "double"], 2.5, 2.5),
    ("price", logical("bytes", "decimal", precision=40, scale=2), Decimal("12345678901234567890.12"), None),
]  # fmt: skip


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize(("name", "kind", "value"), WAYS, ids=str)
def test_each_legal_way_of_writing_a_field_is_read(name, kind, value, kernel):
    for topic in ("product-views", "purchases"):
        got = read(topic, shop_schema(topic, **{name: kind}), BASE[topic] | {name: value}, kernel)
        assert_same(got, ours(topic, context=BASE[topic]["context"]))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize(("name", "kind", "value", "means"), PRICES, ids=str)
def test_each_legal_way_of_writing_a_price_is_read(name, kind, value, means, kernel):
    got = read("ratings", shop_schema("ratings", price=kind), BASE["ratings"] | {name: value}, kernel)
    if means is None and value is not None:
        assert [bad.reason for bad in got[0].bad] == ["bad_price"]
    else:
        assert_same(got, ours("ratings", price=means))


@pytest.mark.parametrize(
    ("topic", "changed", "values", "means"),
    [
        ("user-events", {"kind": enum("click", "add_to_cart")}, {}, {}),
        ("user-events", {"brand": enum("a", "b"), "category": enum("c", name="C")}, {}, {}),
        ("ratings", {"stars": "int"}, {"stars": 4}, {}),
        ("ratings", {"stars": DECIMAL}, {"stars": Decimal("4.00")}, {}),
        ("product-views", {"item": UUID_FIXED}, {"item": SOME_ID.bytes}, {"item": str(SOME_ID)}),
        ("product-views", {"event_id": logical("string", "uuid")}, {"event_id": SOME_ID}, {"event_id": str(SOME_ID)}),
        ("product-views", {"user": UUID_FIXED}, {"user": SOME_ID.bytes}, {"user": str(SOME_ID)}),
        ("product-views", {"item": enum("i", "j")}, {}, {}),
        ("product-views", {"brand": None, "price": None, "context": None}, {},
         {"brand": None, "price": None, "context": {}}),
        ("products", {"ts_ms": logical("long", "timestamp-millis")}, {"ts_ms": MOMENT}, {}),
        ("products", {"price": DECIMAL, "margin": FIXED_DECIMAL},
         {"price": Decimal("2.50"), "margin": Decimal("0.25")}, {}),
        ("products", {"stock": "int", "title": "bytes", "brand": enum("b"), "image_url": None}, {"title": b"Tea"}, {}),
        ("products", {"item": UUID_FIXED, "attributes": {"type": "map", "values": "bytes"}},
         {"item": SOME_ID.bytes, "attributes": {"colour": b"red"}}, {"item": str(SOME_ID)}),
        ("erasures", {"ts_ms": logical("long", "timestamp-micros"), "user": "bytes"}, {"ts_ms": MOMENT, "user": b"u"},
         {}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kernel", [True, False])
def test_each_topic_reads_a_shops_own_types(topic, changed, values, means, kernel):
    got = read(topic, shop_schema(topic, **changed), BASE[topic] | values, kernel)
    assert_same(got, ours(topic, **means))


def test_lines_may_come_first_and_hold_more_and_other_types():
    line = {"type": "record", "name": "Position", "namespace": "com.other", "fields": [
        {"name": "note", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "qty", "aliases": ["quantity"], "type": "int"},
        {"name": "price", "type": DECIMAL},
        {"name": "item", "type": "string"},
        {"name": "category", "type": ["null", "string"]},
        {"name": "brand", "type": "string"},
    ]}  # fmt: skip
    schema = shop_schema("purchases", lines={"type": "array", "items": line})
    schema["fields"].reverse()
    record = BASE["purchases"] | {"lines": [
        {"note": ["x", None], "qty": 2, "price": Decimal("2.50"), "item": "i", "category": "c", "brand": "b"},
        {"note": [], "qty": 1, "price": Decimal("1.00"), "item": "j", "category": None, "brand": ""},
    ]}  # fmt: skip
    means = [*BASE["purchases"]["lines"], {"item": "j", "quantity": 1.0, "price": 1.0}]
    for kernel in (True, False):
        assert_same(read("purchases", schema, record, kernel), ours("purchases", lines=means))
    assert records.reading_of(9, "purchases", OneSchema(schema)).program is not None


OS = {"name": "os", "type": enum("ios", "web", name="Os")}
SHARED = {
    "type": "record",
    "name": "com.shop.Device",
    "fields": [OS, {"name": "since", "type": logical("int", "date")}],
}
TREE = {"type": "record", "name": "Tree", "fields": [{"name": "below", "type": ["null", "Tree"]}]}
EXTRAS = [
    ("boolean", True), ("int", -3), ("float", 1.0), (enum("x", "y", name="E"), "y"), ({"type": "fixed", "name": "F",
    "size": 3}, b"abc"), ({"type": "array", "items": {"type": "map", "values": ["null", "long"]}}, [{"a": 1}, {}]),
    (["null", SHARED], {"os": "web", "since": datetime.date(2020, 1, 1)}), ({"type": "map", "values": "string"}, {}),
    (logical("long", "time-micros"), datetime.time(1, 2)), (UUID_FIXED, SOME_ID.bytes), (DECIMAL, Decimal("1.5")),
    (TREE, {"below": {"below": None}}), ("null", None), ("bytes", b"\xff"),
    ({"type": "array", "items": {"type": "record", "name": "P", "fields": [{"name": "a", "type": SHARED},
      {"name": "b", "type": "com.shop.Device"}]}}, [{"a": {"os": "ios", "since": datetime.date(2020, 1, 1)},
      "b": {"os": "web", "since": datetime.date(2021, 1, 1)}}]),
]  # fmt: skip


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize(("kind", "value"), EXTRAS, ids=lambda one: str(one)[:40])
def test_an_extra_field_of_any_type_is_skipped(kind, value, kernel):
    for topic in ("product-views", "products", "purchases"):
        for place in (0, 3, 99):
            schema = shop_schema(topic)
            schema["fields"].insert(place, {"name": "extra", "type": kind})
            got = read(topic, schema, BASE[topic] | {"extra": value}, kernel)
            assert_same(got, ours(topic))


def test_an_extra_field_named_like_one_of_another_topic_is_skipped():
    schema = shop_schema("product-views")
    schema["fields"] += [{"name": "stars", "type": "double"}, {"name": "quantity", "type": "int"}]
    assert_same(
        read("product-views", schema, BASE["product-views"] | {"stars": 5.0, "quantity": 9}), ours("product-views")
    )


def test_types_of_other_subjects_are_found_by_name():
    schema = shop_schema("product-views")
    schema["fields"].append({"name": "device", "type": "com.shop.Device"})
    record = BASE["product-views"] | {"device": {"os": "ios", "since": datetime.date(2020, 1, 1)}}
    got = read("product-views", schema, record, named={"com.shop.Device": SHARED})
    assert_same(got, ours("product-views"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ts_ms": logical("int", "date")}, ["ts_ms", "long", "int (date)"]),
        ({"ts_ms": logical("long", "time-micros")}, ["ts_ms", "long", "long (time-micros)"]),
        ({"ts_ms": "string"}, ["ts_ms", "long", "string"]),
        ({"ts_ms": None}, ["ts_ms", "long", "missing"]),
        ({"item": "long"}, ["item", "string", "long"]),
        ({"item": "null"}, ["item", "string", "null"]),
        ({"price": "string"}, ["price", "null or double", "string"]),
        ({"price": "bytes"}, ["price", "null or double", "bytes"]),
        ({"context": "string"}, ["context", "map of string", "string"]),
        ({"brand": {"type": "array", "items": "string"}}, ["brand", "null or string", "array of string"]),
    ],
    ids=str,
)
def test_what_cannot_become_ours_is_a_dead_letter_that_names_the_field_and_both_types(changed, said):
    schema = shop_schema("product-views", **changed)
    raw = raw_batch([("product-views", struct.pack(">BI", 0, 9) + b"x")] * 2)
    decoded = decode(raw, OneSchema(schema), NOW, LIMITS)
    assert [(bad.message, bad.reason) for bad in decoded.bad] == [(0, "unreadable_schema"), (1, "unreadable_schema")]
    for word in said:
        assert word in decoded.bad[0].detail


def test_a_branch_that_cannot_become_ours_is_a_dead_letter_and_the_other_is_read():
    schema = shop_schema("product-views", brand=["null", "long", "string"], item=["null", "string"])
    for kernel in (True, False):
        assert_same(read("product-views", schema, BASE["product-views"], kernel), ours("product-views"))
        (bad,) = read("product-views", schema, BASE["product-views"] | {"brand": 7}, kernel)[0].bad
        assert (bad.reason, bad.detail) == (
            "unreadable_schema", "field brand: ours, null or string, cannot be read from long",
        )  # fmt: skip
        (bad,) = read("product-views", schema, BASE["product-views"] | {"item": None}, kernel)[0].bad
        assert bad.reason == "malformed"
        assert "item is null" in bad.detail


@pytest.mark.parametrize(
    "schema", ["string", {"type": "string"}, {"type": "array", "items": "long"}, "PROTOBUF schema"]
)
def test_a_schema_that_is_no_record_is_unknown(schema):
    raw = raw_batch([(topic, struct.pack(">BI", 0, 9) + b"\x02x") for topic in BASE])
    decoded = decode(raw, OneSchema(schema), NOW, LIMITS)
    assert [bad.reason for bad in decoded.bad] == ["unknown_schema"] * len(BASE)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "A"}, {"type": "record", "name": "A", "fields": [{"name": "x"}]},
        {"type": "record", "name": "A", "fields": [{"name": "x", "type": "com.none.Such"}]},
        {"type": "record", "name": "A", "fields": 7}, {"type": "record", "fields": []},
        {"type": "record", "name": "A", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_schema_that_is_none_makes_dead_letters(schema):
    raw = raw_batch([(topic, struct.pack(">BI", 0, 9) + b"\x02x") for topic in BASE])
    assert {bad.reason for bad in decode(raw, OneSchema(schema), NOW, LIMITS).bad} == {"unreadable_schema"}


def test_a_message_nested_a_million_deep_is_refused_and_ends_nothing():
    schema = shop_schema("product-views")
    schema["fields"].insert(0, {"name": "extra", "type": TREE})
    raw = raw_batch([("product-views", struct.pack(">BI", 0, 9) + b"\x02" * 1_000_000)])
    assert [bad.reason for bad in decode(raw, OneSchema(schema), NOW, LIMITS).bad] == ["malformed"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"sku-1", "sku-1"), (b'"sku-1"', "sku-1"), (b'"27in monitor', '"27in monitor'),
        (b"\0\0\0\0\x09\x0asku-1", "sku-1"), (b'"\\u00e4"', "ä"),
        (b"\0\0\0\0\x09\x0asku", "bad_key"), (b"\xff\xfe", "bad_key"), (b'{"id":1}', "bad_key"), (b"", "empty_id"),
        (b'""', "empty_id"), (b"x" * 257, "id_too_long"),
    ],
)  # fmt: skip
def test_the_key_of_a_product_that_is_gone_may_be_json_or_avro(key, expected):
    decoded = decode(raw_batch([("products", None, key)]), OneSchema("string"), NOW, LIMITS)
    assert [change.item for change in decoded.products] + [bad.reason for bad in decoded.bad] == [expected]


def test_an_avro_key_may_be_a_record_and_an_unknown_id_is_a_dead_letter():
    schema = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "string"}]}
    decoded = decode(raw_batch([("products", None, b"\0\0\0\0\x09\x02a")]), OneSchema(schema), NOW, LIMITS)
    assert [change.item for change in decoded.products] == ["a"]
    decoded = decode(raw_batch([("products", None, b"\0\0\0\0\x09\x02a")]), FolderRegistry(), NOW, LIMITS)
    assert [bad.reason for bad in decoded.bad] == ["unknown_schema"]


text = st.text(min_size=1, max_size=6)
times = st.sampled_from([(kind, value) for name, kind, value in WAYS if name == "ts_ms"])
prices = st.sampled_from([(kind, value) for _, kind, value, _ in PRICES])
texts = st.sampled_from(["string", "bytes", ["null", "string"], ["string", "null"], ["int", "bytes", "null"],
                         logical("string", "uuid"), enum("x", "y", "zz"), ["null", enum("x", "zz")]])  # fmt: skip


def text_for(draw, kind):
    branch = draw(st.sampled_from(kind)) if isinstance(kind, list) else kind
    if branch in ("null", "int"):
        return None if branch == "null" else draw(st.integers(-5, 5))
    if isinstance(branch, dict):
        return draw(st.uuids()) if branch["type"] == "string" else draw(st.sampled_from(branch["symbols"]))
    found = draw(text)
    return found.encode() if branch == "bytes" else found


@settings(max_examples=150)
@given(st.data())
def test_the_kernel_and_fastavro_agree_on_any_legal_schema(data):
    draw, topic = data.draw, data.draw(st.sampled_from(["product-views", "user-events", "ratings", "purchases"]))
    record, fields = dict(BASE[topic]), []
    for n, field in enumerate(current_schema(topic)["fields"]):
        name, kind = field["name"], field["type"]
        if name == "ts_ms":
            kind, record[name] = draw(times)
        elif name == "price":
            kind, record[name] = draw(prices)
        elif name == "stars":
            kind, record[name] = draw(
                st.sampled_from([("int", 4), ("float", 2.5), (["null", DECIMAL], Decimal("3.10"))])
            )
        elif name not in ("context", "lines"):
            kind = draw(texts)
            kind = {**kind, "name": f"N{n}"} if isinstance(kind, dict) and "name" in kind else kind
            kind = (
                [{**k, "name": f"N{n}"} if isinstance(k, dict) else k for k in kind] if isinstance(kind, list) else kind
            )
            record[name] = text_for(draw, kind)
        n += 1
        own = {"name": name, "type": kind}
        if draw(st.booleans()) and name not in ("context", "lines"):
            own = {"name": f"their_{name}", "aliases": [name], "type": kind}
            record[f"their_{name}"] = record.pop(name)
        if "default" not in field or draw(st.booleans()):
            fields.append(own)
    for kind, value in draw(st.lists(st.sampled_from(EXTRAS), max_size=1)):
        fields.append({"name": "extra", "type": kind})
        record["extra"] = value
    schema = {"type": "record", "name": "X", "namespace": "a.b", "fields": draw(st.permutations(fields))}
    try:
        value = framed(schema, record)
    except Exception:  # fastavro may not write what it could read, e.g. two types of one name
        return
    value = value[: draw(st.sampled_from([len(value), len(value), len(value) - 1]))]
    raw, registry = raw_batch([(topic, value)]), OneSchema(schema)
    fast = decode(raw, registry, NOW, LIMITS)
    records._readings[9, topic] = records._readings[9, topic]._replace(program=None)
    slow = decode(raw, registry, NOW, LIMITS)
    assert_same((fast, raw), (slow, raw))
    assert not np.any([bad.reason == "decode_failed" for bad in fast.bad])
