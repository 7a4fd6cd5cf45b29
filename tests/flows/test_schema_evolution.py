"""A second version of each topic: what a newer or older writer says is folded as if the first had said it.

The writer is Confluent's own serializer against a registry over HTTP; the reader is the program's registry, log,
decoder and lane.
"""

import copy

import orjson
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from helpers.registry_server import Registry

from flows.fold.lane import Lane, LaneSettings
from flows.log.confluent_registry import ConfluentRegistry
from flows.log.contract import Message
from flows.log.read_to import read_to
from flows.log.sqlite_log import SqliteLog
from schemas import records, registry
from schemas.avro_decoder import Limits, decode
from schemas.events import TOPICS
from schemas.json_events import encode
from schemas.records import read_value
from schemas.registry import FolderRegistry, current_schema, schema_versions
from state.store.contract import MemoryStore

T0 = 1_700_000_000_000
SETTINGS = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048)
LIMITS = Limits()
VIEW = {"event_id": "v", "ts_ms": T0, "user": "ann", "item": "cup", "price": 2.5, "category": "k"}
ABOUT = {"user": "ann", "item": "tea", "price": 3.5, "country": "FR"}
RECORDS = {
    "product-views": ABOUT,
    "user-events": {**ABOUT, "kind": "add_to_cart"},
    "purchases": {"user": "ann", "country": "FR", "lines": [{"item": "tea", "quantity": 2.0, "price": 3.5}]},
    "ratings": {**ABOUT, "stars": 1.0},
    "products": {"item": "tea", "title": "Tea", "category": "drinks", "price": 3.5, "attributes": {"origin": "Uji"}},
    "impressions": {"user": "ann", "request_id": "r", "item": "tea", "position": 3, "source": "popular"},
    "erasures": {"user": "bob"},
    "product-updates": {"item": "tea", "change": "merge", "category": "drinks", "price": 3.5, "stock": 0,
                        "attributes": {"origin": "Uji", "organic": None}, "cleared": ["margin"]},
}  # fmt: skip
"""What is said of each topic; the fields that it leaves out are null, and `removed` takes one of those away."""

PRODUCTS = ("products", "product-updates")


def record_of(topic, n):
    own = {"ts_ms": T0 + 1000 * (n + 1)} | ({} if topic in PRODUCTS else {"event_id": f"e{n}"})
    return RECORDS[topic] | own


def field_of(schema, name):
    return next(field for field in schema["fields"] if field["name"] == name)


def added(topic, schema):
    """A field more, with a default, in the middle."""
    schema["fields"].insert(1, {"name": "channel", "type": "string", "default": "web"})
    return {"channel": "app"}


def removed(topic, schema):
    """One of our fields is gone: one that may be null."""
    gone = {"products": "seller", "product-updates": "seller", "impressions": "arm"}.get(topic, "session")
    schema["fields"] = [field for field in schema["fields"] if field["name"] != gone]
    return {}


def renamed(topic, schema):
    """A field has another name, and ours as an alias."""
    old = "user" if topic in ("purchases", "erasures") else "item"
    field = field_of(schema, old)
    field.update(name="renamed", aliases=[old])
    return {"renamed": RECORDS[topic][old]}


def widened(topic, schema):
    """A text may be null now, and a price a whole number."""
    name = "user" if topic in ("purchases", "erasures") else "item"
    field_of(schema, name)["type"] = ["null", "string"]
    if "price" in RECORDS[topic]:
        field_of(schema, "price")["type"] = ["null", "long", "double"]
    return {}


def reordered(topic, schema):
    schema["fields"].reverse()
    return {}


ENUMS = {
    "products": ("category", "drinks"), "product-updates": ("category", "drinks"), "impressions": ("source", "popular"),
    "erasures": ("channel", "app"),
}  # fmt: skip


def enum_grown(topic, schema):
    """A text became one of a list, and the list has grown before the one in use."""
    name, value = ENUMS.get(topic, ("country", "FR"))
    kind = {"type": "enum", "name": "Grown", "symbols": ["first", "new", value, "last"]}
    if name == "channel":
        schema["fields"].append({"name": name, "type": kind, "default": "first"})
    else:
        field_of(schema, name)["type"] = ["null", kind]
    return {name: value}


def everything(topic, schema):
    said = {}
    for change in (added, removed, widened, enum_grown, renamed, reordered):
        if change is not removed or topic != "erasures":
            said |= change(topic, schema)
    return said


CHANGES = [added, removed, renamed, widened, reordered, enum_grown, everything]
CASES = [(topic, change) for topic in TOPICS for change in CHANGES]
CASES = [case for case in CASES if case != ("erasures", removed)]  # all of its fields are required


@pytest.fixture(scope="module")
def server():
    server = Registry()
    yield server
    server.close()


def write_as(server, topic, schema, record):
    """Return a record as Confluent's serializer writes it, which registers the schema under the topic's subject."""
    client = SchemaRegistryClient({"url": server.url})
    subject = {"subject.name.strategy": topic_subject_name_strategy}
    write = AvroSerializer(client, orjson.dumps(schema).decode(), conf=subject)
    return write(record, SerializationContext(topic, MessageField.VALUE))


def fold(tmp_path, name, values, registry):
    """Append (topic, value) to a log and fold it; return the rows and what was refused."""
    log, store = SqliteLog(tmp_path / f"{name}.sqlite"), MemoryStore()
    log.append([Message(topic, b"k", value, T0) for topic, value in values])
    lane = Lane(SETTINGS, store, "g1")
    bad, n_impressions = [], 0
    for raw in read_to(log, lane.open(), log.end(), 5):
        decoded = decode(raw, registry, T0 + 10**7, LIMITS)
        bad += decoded.bad
        n_impressions += decoded.n_impressions
        changes = lane.apply(decoded, raw)
        store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    log.close()
    return store.rows, [(one.reason, one.detail) for one in bad], n_impressions


def without_nulls(record):
    return {name: value for name, value in record.items() if value is not None}


@pytest.mark.parametrize(("topic", "change"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_newer_writer_is_read_as_the_first_version_is(server, tmp_path, topic, change):
    ours = ConfluentRegistry(server.url)
    newer = copy.deepcopy(current_schema(topic))
    said = change(topic, newer)
    before = [("product-views", encode("product-views", {**VIEW, "user": user, "event_id": user}, ours))
              for user in ("ann", "bob")]  # fmt: skip
    first, second, third = (record_of(topic, n) for n in range(3))
    old = [encode(topic, one, ours) for one in (first, second, third)]
    new = write_as(server, topic, newer, second | said)
    assert new[:5] != old[1][:5], "the second version has an id of its own"
    wanted = fold(tmp_path, "old", [*before, *((topic, one) for one in old)], ours)
    found = fold(tmp_path, "new", [*before, *((topic, one) for one in (old[0], new, old[2]))], ours)
    assert found == wanted
    assert found[1] == []
    # What reports read of a message is equal too, but for the fields that only the second version has.
    known = {field["name"] for field in current_schema(topic)["fields"]}
    read = {name: value for name, value in read_value(new, topic, ours).items() if name in known}
    assert without_nulls(read) == without_nulls(read_value(old[1], topic, ours))


@pytest.fixture
def second_version(tmp_path, monkeypatch):
    """Return a function that makes a changed schema the program's own second version of a topic."""

    def install(topic, schema):
        folder = tmp_path / "schemas" / "avro"
        (folder / "history").mkdir(parents=True)
        for one in TOPICS:
            for version, known in schema_versions(one).items():
                (folder / "history" / f"{one}.v{version}.avsc").write_bytes(orjson.dumps(known))
            (folder / f"{one}.avsc").write_bytes(orjson.dumps(current_schema(one)))
        newest = max(schema_versions(topic)) + 1
        for path in (folder / "history" / f"{topic}.v{newest}.avsc", folder / f"{topic}.avsc"):
            path.write_bytes(orjson.dumps(schema))
        monkeypatch.setattr(registry, "files", lambda package: tmp_path / package)
        monkeypatch.setattr(records, "_readings", {})
        current_schema.cache_clear()
        return newest

    yield install
    monkeypatch.undo()
    current_schema.cache_clear()


def optional_ids(topic, schema):
    """Ours widened: what had to be there may be null."""
    for field in schema["fields"]:
        if field["type"] == "string":
            field["type"] = ["null", "string"]
        elif field["type"] == "int":
            field["type"] = "long"
    return {}


def stripped(folded):
    """Return what was folded, its products without the fields that only one of two versions has."""
    rows, *rest = folded
    for said in (b'"channel":"web",', b'"channel":"app",', b'"seller":null,'):
        rows = {key: row.replace(said, b"") for key, row in rows.items()}
    return rows, *rest


@pytest.mark.parametrize("change", [added, removed, optional_ids, reordered])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_newer_program_reads_what_was_written_before_it(tmp_path, second_version, topic, change):
    if (topic, change) == ("erasures", removed):
        change = reordered
    before = FolderRegistry()
    first, second = record_of(topic, 0), record_of(topic, 1)
    views = [("product-views", encode("product-views", {**VIEW, "user": user, "event_id": user}, before))
             for user in ("ann", "bob")]  # fmt: skip
    old = [(topic, encode(topic, one, before)) for one in (first, second)]
    wanted = fold(tmp_path, "old", [*views, *old], before)
    newer = copy.deepcopy(current_schema(topic))
    said = change(topic, newer)
    version = second_version(topic, newer)
    after = FolderRegistry()
    written = encode(topic, second | said, after)
    assert int.from_bytes(written[1:5], "big") == before.id_for(topic) - 1 + version
    found = fold(tmp_path, "new", [*views, old[0], (topic, written)], after)
    if topic == "products":  # its row is the record as it is, which the change shows in
        found, wanted = stripped(found), stripped(wanted)
    assert found == wanted
    assert found[1] == []


def without(name):
    def change(schema):
        schema["fields"] = [field for field in schema["fields"] if field["name"] != name]

    return change


def retyped(name, kind):
    return lambda schema: field_of(schema, name).update(type=kind)


REFUSED = [
    ("product-views", without("item"), {}, "unreadable_schema", "field item"),
    ("product-views", retyped("ts_ms", "string"), {"ts_ms": "now"}, "unreadable_schema", "field ts_ms"),
    ("user-events", without("kind"), {}, "unreadable_schema", "field kind"),
    ("user-events", retyped("kind", {"type": "enum", "name": "K", "symbols": ["add_to_cart", "gift"]}),
     {"kind": "gift"}, "unknown_kind", "kind"),
    ("purchases", without("lines"), {}, "unreadable_schema", "field lines"),
    ("purchases", retyped("lines", {"type": "array", "items": "string"}), {"lines": ["tea"]}, "unreadable_schema",
     "lines"),
    ("ratings", without("stars"), {}, "unreadable_schema", "field stars"),
    ("ratings", retyped("stars", "string"), {"stars": "five"}, "unreadable_schema", "field stars"),
    ("products", retyped("item", "long"), {"item": 7}, "unreadable_schema", "field item"),
    ("products", retyped("item", ["null", "string"]), {"item": None}, "malformed", "item is null"),
    ("product-updates", without("item"), {}, "unreadable_schema", "field item"),
    ("product-updates", retyped("change", "string"), {"change": "drop"}, "unknown_kind", "merge, replace, gone"),
    ("product-updates", retyped("cleared", {"type": "array", "items": "string"}), {"cleared": ["colour"]}, "malformed",
     "'colour'"),
    ("impressions", without("request_id"), {}, "unreadable_schema", "field request_id"),
    ("erasures", without("user"), {}, "unreadable_schema", "field user"),
    ("erasures", lambda schema: schema.update(name="ProductView"), {}, "unknown_schema", "belongs to 'product-views'"),
]  # fmt: skip


@pytest.mark.parametrize(("topic", "change", "said", "reason", "detail"), REFUSED)
def test_what_a_newer_writer_can_no_longer_say_is_refused_with_one_reason(
    server, tmp_path, topic, change, said, reason, detail
):
    ours = ConfluentRegistry(server.url)
    newer = copy.deepcopy(current_schema(topic))
    change(newer)
    good = [("product-views", encode("product-views", {**VIEW, "event_id": f"v{n}"}, ours)) for n in range(2)]
    new = write_as(server, topic, newer, record_of(topic, 1) | said)
    rows, bad, n_impressions = fold(tmp_path, "new", [good[0], (topic, new), good[1]], ours)
    assert [why for why, _ in bad] == [reason]
    assert detail in bad[0][1]
    assert n_impressions == 0
    kept = fold(tmp_path, "good", good, ours)[0]
    assert {key: value for key, value in rows.items() if b"positions" not in key} == {
        key: value for key, value in kept.items() if b"positions" not in key
    }
