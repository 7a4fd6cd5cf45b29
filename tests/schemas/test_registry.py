import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations

import fastavro
import pytest
from fastavro.schema import parse_schema

from schemas.events import TOPICS
from schemas.registry import (
    ConfluentRegistry,
    FolderRegistry,
    RegistryUnavailable,
    UnknownSchema,
    current_schema,
    schema_versions,
)

avro_compatibility = pytest.importorskip("avro.compatibility")
import avro.schema  # noqa: E402


def can_read(reader, writer):
    checker = avro_compatibility.ReaderWriterCompatibilityChecker()
    result = checker.get_compatibility(avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer)))
    return result.compatibility is avro_compatibility.SchemaCompatibilityType.compatible


@pytest.mark.parametrize("topic", TOPICS)
def test_every_version_reads_every_other_and_the_current_is_the_newest(topic):
    versions = schema_versions(topic)
    assert versions[max(versions)] == current_schema(topic)
    for one, other in combinations(versions.values(), 2):
        assert can_read(one, other)
        assert can_read(other, one)


def test_the_check_would_see_a_breaking_change():
    old = current_schema("ratings")
    new = {**old, "fields": [*old["fields"], {"name": "must", "type": "string"}]}
    assert not can_read(new, old)


def test_folder_ids_never_change():
    registry = FolderRegistry()
    assert [registry.id_for(topic) for topic in TOPICS] == [101, 201, 301, 401, 501, 601, 701]
    assert registry.schema(501).topic == "products"
    with pytest.raises(UnknownSchema, match="schema id 9 is unknown; known ids: \\[101"):
        registry.schema(9)


@pytest.fixture
def registry_server():
    schemas = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code, body):
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            schemas.setdefault(len(schemas) + 1, body["schema"])
            self.answer(200, {"id": len(schemas)})

        def do_GET(self):
            schema_id = int(self.path.rpartition("/")[2])
            if schema_id in schemas:
                self.answer(200, {"schema": schemas[schema_id]})
            else:
                self.answer(404, {"error_code": 40403})

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_confluent_registry_gives_and_resolves_ids(registry_server):
    registry = ConfluentRegistry(registry_server)
    schema_id = registry.id_for("ratings")
    assert ConfluentRegistry(registry_server).schema(schema_id).topic == "ratings"
    assert registry.schema(schema_id).parsed["name"] == parse_schema(current_schema("ratings"))["name"]
    with pytest.raises(UnknownSchema, match="77"):
        registry.schema(77)


def test_a_registry_that_is_away_says_so():
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        ConfluentRegistry("http://127.0.0.1:9", timeout_s=0.2).id_for("ratings")


def test_golden_schemas_parse():
    assert {fastavro.parse_schema(current_schema(topic))["name"] for topic in TOPICS} >= {"headrace.events.v1.Purchase"}
