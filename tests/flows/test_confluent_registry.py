"""The registry's client against a server that speaks Confluent's interface over real HTTP, kind and unkind."""

import base64
import io
import json
import logging
import struct
import time

import fastavro
import pytest
from helpers.raw_batches import raw_batch
from helpers.registry_server import Registry

from flows.log.confluent_registry import ConfluentRegistry, without_credentials
from flows.log.open_registry import open_registry
from headrace.settings import Settings
from schemas.avro_decoder import Limits, decode
from schemas.registry import FolderRegistry, RegistryUnavailable, UnknownSchema, current_schema

NOW = 1_700_000_000_000


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture
def locked():
    registry = Registry("key:se/cret")
    registry.url = f"http://key:se%2Fcret@{registry.host}"
    yield registry
    registry.close()


def test_ids_and_schemas_are_given_and_asked_for_once(registry):
    client = ConfluentRegistry(registry.url)
    assert not client.knows("ratings")
    schema_id = client.id_for("ratings")
    assert (client.id_for("ratings"), client.knows("ratings")) == (schema_id, True)
    assert client.schema(schema_id).topic == "ratings"
    assert len(registry.asked) == 2  # is it there, and then: register it
    other = ConfluentRegistry(registry.url)
    assert (other.id_for("ratings"), len(registry.asked)) == (schema_id, 3)
    third = ConfluentRegistry(registry.url)
    assert third.schema(schema_id) is third.schema(schema_id)
    assert third.schema(schema_id).topic == "ratings"
    assert len(registry.asked) == 4


def test_an_id_that_the_registry_does_not_know_is_unknown_and_not_asked_for_again_at_once(registry):
    client = ConfluentRegistry(registry.url)
    for _ in range(3):
        with pytest.raises(UnknownSchema, match="77"):
            client.schema(77)
    assert len(registry.asked) == 1


def test_a_registry_behind_basic_auth_works_and_its_secret_is_said_nowhere(locked, caplog):
    caplog.set_level(logging.DEBUG)
    client = open_registry(Settings(schema_registry_url=locked.url))
    assert client.schema(client.id_for("ratings")).topic == "ratings"
    other = open_registry(
        Settings(schema_registry_url=f"http://{locked.host}",
                 schema_registry_config={"basic.auth.user.info": "key:se/cret"})
    )  # fmt: skip
    assert other.id_for("ratings") == client.id_for("ratings")
    wrong = ConfluentRegistry(f"http://key:wrong-one@{locked.host}")
    with pytest.raises(RegistryUnavailable, match="answered 401") as found:
        wrong.id_for("ratings")
    said = caplog.text + str(found.value) + repr(found.value.__cause__)
    assert "se/cret" not in said
    assert "se%2Fcret" not in said
    assert "wrong-one" not in said
    assert base64.b64encode(b"key:se/cret").decode() not in said


def test_a_registry_that_is_away_hangs_or_fails_says_so_within_its_time(registry):
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        ConfluentRegistry("http://key:secret@127.0.0.1:9", timeout_s=0.5).id_for("ratings")
    registry.hang_s = 20
    started = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        ConfluentRegistry(registry.url, timeout_s=0.5).id_for("ratings")
    assert time.monotonic() - started < 10
    registry.hang_s, registry.status = 0, 503
    client = ConfluentRegistry(registry.url)
    with pytest.raises(RegistryUnavailable, match="answered 503"):
        client.schema(1)
    registry.status = 404  # a wrong path: no id is unknown for that
    with pytest.raises(RegistryUnavailable, match="answered 404"):
        client.schema(1)
    registry.status = None
    assert client.schema(client.id_for("ratings")).topic == "ratings"


def test_settings_that_the_client_refuses_are_named():
    with pytest.raises(RegistryUnavailable, match="schema_registry_config"):
        ConfluentRegistry("http://127.0.0.1:9", {"ssl.ca.location": "/nowhere/ca.pem"})
    with pytest.raises(RegistryUnavailable, match="no_such_setting"):
        ConfluentRegistry("http://127.0.0.1:9", {"no_such_setting": "1"})


def test_a_shops_own_schema_another_topics_and_a_bare_string_each_are_what_they_are(registry):
    shop = {"type": "record", "name": "View", "namespace": "com.shop", "fields": [
        {"name": "item", "type": "string"}, {"name": "device", "type": "com.shop.Device"},
        {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "session", "type": "string"}, {"name": "event_id", "type": "string"}]}  # fmt: skip
    device = {"type": "enum", "name": "Device", "namespace": "com.shop", "symbols": ["phone", "desk"]}
    registry.add("device", {"schema": json.dumps(device)})
    ids = {
        "shop": registry.add("a", {"schema": json.dumps(shop), "references": [
            {"name": "com.shop.Device", "subject": "device", "version": 1}]}),
        "string": registry.add("b", {"schema": '"string"'}),
        "json": registry.add("c", {"schema": '{"type":"object"}', "schemaType": "JSON"}),
        "rating": registry.add("d", {"schema": json.dumps(current_schema("ratings"))}),
        "none": registry.add("e", {"schema": '{"type":"record","name":"X","fields":[]}'}),
    }  # fmt: skip
    body = io.BytesIO()
    defined = {}
    fastavro.parse_schema(device, defined)
    record = {"item": "i", "device": "desk", "ts_ms": NOW * 1000, "session": "s", "event_id": "e"}
    fastavro.schemaless_writer(body, fastavro.parse_schema(shop, defined), record)
    raw = raw_batch(
        [("product-views", struct.pack(">BI", 0, schema_id) + body.getvalue()) for schema_id in (*ids.values(), 999)]
    )
    decoded = decode(raw, ConfluentRegistry(registry.url), NOW, Limits())
    assert decoded.interactions["message"].tolist() == [0]
    assert decoded.interactions["ts_ms"].tolist() == [NOW]
    assert [(bad.message, bad.reason) for bad in decoded.bad] == [
        (1, "unknown_schema"), (2, "unknown_schema"), (3, "unknown_schema"), (4, "unreadable_schema"),
        (5, "unknown_schema"),
    ]  # fmt: skip


def test_the_url_loses_its_credentials():
    assert without_credentials("http://a:b@h:1/x/") == ("http://h:1/x", "a:b")
    assert without_credentials("http://h:1") == ("http://h:1", "")
    assert without_credentials("http://a:b@h:1,http://a:b@i:2") == ("http://h:1,http://i:2", "a:b")
    assert isinstance(open_registry(Settings()), FolderRegistry)
