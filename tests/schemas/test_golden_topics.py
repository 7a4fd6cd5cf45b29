"""One message of every topic keeps its bytes, and is still read as what it was."""

import math

import pytest
from helpers.golden import golden_bytes
from helpers.raw_batches import raw_batch

from schemas.avro_decoder import Limits, decode
from schemas.events import TOPICS, Change, Kind
from schemas.ids import hash_event_id, hash_id, hash_visitor
from schemas.impressions import encode_impressions
from schemas.json_events import encode
from schemas.records import read_value
from schemas.registry import FolderRegistry

pytestmark = pytest.mark.law(n=8)

T0 = 1_700_000_000_123
VISITOR = {"event_id": "e1", "ts_ms": T0, "user": "ann", "session": "s9"}
ABOUT = {"item": "tea-1", "price": 3.5, "category": "drinks/tea", "brand": "Größe"}
WHERE = {"country": "DE", "context": {"page": "home"}}
LINE = {**ABOUT, "quantity": 2.0, "discount": 0.25}
RECORDS = {
    "product-views": {**VISITOR, **ABOUT, **WHERE},
    "user-events": {**VISITOR, **ABOUT, **WHERE, "kind": "add_to_cart", "query": "green tea"},
    "purchases": {**VISITOR, **WHERE, "order_id": "o7", "lines": [LINE, {"item": "cup"}]},
    "ratings": {**VISITOR, **ABOUT, **WHERE, "stars": 4.0},
    "products": {"ts_ms": T0, **ABOUT, "title": "Tea", "stock": 12, "image_url": "https://shop.example/tea.png",
                 "seller": "Kim", "margin": 0.4, "attributes": {"origin": "Uji"}},
    "impressions": {**VISITOR, "request_id": "r1", "item": "tea-1", "position": 3, "source": "popular", "arm": "x:b",
                    "propensity": 0.5, "anchor": "a1", "generation": "g1"},
    "erasures": {"event_id": "e2", "ts_ms": T0, "user": "ann"},
    "product-updates": {"ts_ms": T0 + 1, "item": "tea-1", "change": "merge", "price": 4.0, "stock": 0,
                        "attributes": {"origin": "Kyoto", "organic": None}, "cleared": ["seller", "margin"]},
}  # fmt: skip
DEFAULTS = {"context": {}, "attributes": {}, "quantity": 1.0, "change": "merge", "cleared": []}
REGISTRY, LIMITS = FolderRegistry(), Limits()


def test_every_topic_has_its_golden_message():
    assert tuple(RECORDS) == TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_a_message_keeps_its_bytes(topic):
    value = golden_bytes(f"topics/{topic}")
    assert value[:5] == bytes([0, 0, 0]) + (100 * (TOPICS.index(topic) + 1) + 1).to_bytes(2, "big")
    assert encode(topic, RECORDS[topic], REGISTRY) == value


@pytest.mark.parametrize("topic", TOPICS)
def test_a_golden_message_is_read_as_the_record_it_was(topic):
    record = read_value(golden_bytes(f"topics/{topic}"), topic, REGISTRY)
    for line, written in zip(record.pop("lines", []), RECORDS[topic].get("lines", []), strict=True):
        assert line == {name: written.get(name, DEFAULTS.get(name)) for name in line}
    assert record == {name: RECORDS[topic].get(name, DEFAULTS.get(name)) for name in record}


def test_the_list_of_impressions_is_encoded_as_one_message_is():
    shared = {name: value for name, value in RECORDS["impressions"].items() if name not in ("event_id", "item")}
    (first, second) = encode_impressions(REGISTRY.id_for("impressions"), shared, [("tea-1", "popular"), ("cup", "new")])
    expected = {**RECORDS["impressions"], "event_id": "r1-1", "position": 1}
    assert first == encode("impressions", expected, REGISTRY)
    expected |= {"event_id": "r1-2", "position": 2, "item": "cup", "source": "new"}
    assert second == encode("impressions", expected, REGISTRY)


def test_golden_messages_become_these_rows():
    messages = [(topic, golden_bytes(f"topics/{topic}")) for topic in TOPICS]
    raw = raw_batch(messages)
    decoded = decode(raw, REGISTRY, T0 + 1, LIMITS)
    assert decoded.bad == []
    rows = decoded.interactions
    shared = {"user": hash_visitor("ann", "s9"), "ts_ms": T0, "country": hash_id("DE")}
    for name, value in shared.items():
        assert set(rows[name].tolist()) == {value}, name
    assert rows["kind"].tolist() == [Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.PURCHASE, Kind.RATING]
    assert rows["message"].tolist() == [0, 1, 2, 2, 3]
    assert rows["line"].tolist() == [0, 0, 0, 1, 0]
    assert rows["event_id"].tolist() == [hash_event_id("e1", TOPICS[k]) for k in (0, 1, 2, 2, 3)]
    assert rows["value"].tolist() == [1.0, 1.0, 2.0, 1.0, 4.0]
    items = ["tea-1", "tea-1", "tea-1", "cup", "tea-1"]
    assert rows["item"].tolist() == [hash_id(item) for item in items]
    texts = [raw.payload[row["item_start"] :][: row["item_length"]].tobytes().decode() for row in rows]
    assert texts == items
    there = [item == "tea-1" for item in items]
    assert rows["category"].tolist() == [hash_id("drinks/tea") if one else 0 for one in there]
    assert rows["brand"].tolist() == [hash_id("Größe") if one else 0 for one in there]
    prices = [3.5 if one else math.nan for one in there]
    assert str(rows["price"].tolist()) == str(prices)
    whole, update = decoded.products
    product = {name: value for name, value in RECORDS["products"].items() if name not in ("item", "ts_ms")}
    assert (whole.item, whole.ts_ms, whole.product, whole.change) == ("tea-1", T0, product, Change.WHOLE)
    named = {"price": 4.0, "stock": 0, "attr.origin": "Kyoto", "attr.organic": None, "seller": None, "margin": None}
    assert (update.item, update.ts_ms, update.product, update.change) == ("tea-1", T0 + 1, named, Change.MERGE)
    (erasure,) = decoded.erasures
    assert (erasure.user, erasure.ts_ms, decoded.n_impressions) == ("ann", T0, 1)
