"""A flow on a shop's own schemas, in a real registry behind basic auth that hangs, comes back and dies."""

import io
import json
import signal
import struct
import time
from datetime import UTC, datetime
from decimal import Decimal

import fastavro
import orjson
import pytest
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from helpers.apicurio import Apicurio
from helpers.flows import start, stop

from flows.log.confluent_registry import without_credentials
from flows.log.contract import Message
from flows.log.dead_letters import read_dead_letters
from flows.log.sqlite_log import SqliteLog
from schemas.events import DEAD_LETTERS
from schemas.ids import hash_id
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.store.redis_store import RedisStore

pytestmark = [pytest.mark.redis, pytest.mark.kafka, pytest.mark.e2e, pytest.mark.timeout(1200)]
T0 = 1_700_000_000_000
TIME = {"type": "long", "logicalType": "timestamp-millis"}
PRODUCT = {"type": "record", "name": "Article", "namespace": "com.shop.catalogue", "fields": [
    {"name": "warehouse", "type": {"type": "enum", "name": "Place", "symbols": ["north", "south"]}},
    {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
    {"name": "ts_ms", "type": TIME},
    {"name": "sku", "aliases": ["item"], "type": "string"},
    {"name": "title", "type": "string"},
]}  # fmt: skip
DATED = {"type": "record", "name": "Dated", "fields": [
    {"name": "item", "type": "string"}, {"name": "ts_ms", "type": {"type": "int", "logicalType": "date"}}]}  # fmt: skip


def wait_until(true):
    """As `test_flow.wait_until`, for a flow that may have kernels to compile first."""
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def framed(schema_id, schema, record):
    out = io.BytesIO()
    out.write(struct.pack(">BI", 0, schema_id))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


def product(schema_id, n):
    record = {"warehouse": "south", "price": Decimal(n), "ts_ms": datetime.fromtimestamp(T0 / 1000, UTC),
              "sku": f"i{n}", "title": f"Tea {n}"}  # fmt: skip
    return Message("products", f"i{n}".encode(), framed(schema_id, PRODUCT, record), T0 + n)


@pytest.fixture
def registry(tmp_path):
    registry = Apicurio(tmp_path)
    registry.start()
    yield registry
    registry.close()


def test_a_flow_folds_a_shops_own_schemas_and_waits_for_its_registry(registry, tmp_path):
    url, credentials = without_credentials(registry.url)
    client = SchemaRegistryClient({"url": url, "basic.auth.user.info": credentials})
    ids = {
        name: client.register_schema(name, RegistrySchema(json.dumps(schema), "AVRO"))
        for name, schema in (("products-value", PRODUCT), ("products-key", "string"), ("dated", DATED))
    }
    log = SqliteLog(tmp_path / "log.sqlite")
    with EmbeddedRedis(tmp_path / "redis") as redis:
        store = RedisStore(redis.url)

        def products():
            names = [keys.product(keys.prefix("shop", 0), hash_id(f"i{n}")) for n in range(5)]
            return [row and orjson.loads(row) for row in store.read(names)]

        log.append([
            product(ids["products-value"], 0), product(ids["products-value"], 1), product(ids["products-value"], 2),
            Message("products", b"k", struct.pack(">BI", 0, ids["products-key"]) + b"\x02x", T0),  # E2
            Message("products", b"k", struct.pack(">BI", 0, 999_999) + b"x", T0),
            Message("products", b"k", framed(ids["dated"], DATED, {"item": "d", "ts_ms": 19_000}), T0),
            Message("products", b'"i0"', None, T0),  # E11
            Message("products", struct.pack(">BI", 0, ids["products-key"]) + b"\x04i1", None, T0),
        ])  # fmt: skip
        process = start("loop", tmp_path / "log.sqlite", redis.url, "shop", HEADRACE_SCHEMA_REGISTRY_URL=registry.url,
                        HEADRACE_SCHEMA_REGISTRY_TIMEOUT_S="1", HEADRACE_LOG_FORMAT="json")  # fmt: skip
        wait_until(lambda: process.poll() is not None or products()[2] is not None)
        assert process.poll() is None, process.stderr.read()
        found = products()
        assert [row.get("gone") for row in found[:2]] == [True, True]
        assert (found[2]["price"], found[2]["title"], found[2]["ts_ms"]) == (2.0, "Tea 2", T0)
        assert "warehouse" not in found[2]
        newer, newest = (
            client.register_schema("products-value", RegistrySchema(json.dumps({**PRODUCT, "doc": doc}), "AVRO"))
            for doc in ("newer", "newest")
        )
        waited = [""]

        def read_log_until(said):
            while said not in waited[-1]:
                waited.append(process.stderr.readline())

        registry.send(signal.SIGSTOP)  # it hangs, at a schema that the flow has not seen yet
        log.append([product(newer, 3)])
        read_log_until("out of reach")
        assert products()[3] is None
        registry.send(signal.SIGCONT)
        wait_until(lambda: products()[3] is not None)
        registry.kill()
        log.append([product(newest, 4)])
        read_log_until("502")
        assert products()[4] is None
        errors = "".join(waited) + stop(process)
        store.close()
    assert "secret" not in errors
    dead = SqliteLog(tmp_path / "log.sqlite", [DEAD_LETTERS])
    letters = read_dead_letters(dead)
    assert [(letter.offset, letter.reason) for letter in letters] == [
        (3, "unknown_schema"), (4, "unknown_schema"), (5, "unreadable_schema"),
    ]  # fmt: skip
    assert "ts_ms" in letters[2].detail
    assert "int (date)" in letters[2].detail
    assert "secret" not in str(letters)
