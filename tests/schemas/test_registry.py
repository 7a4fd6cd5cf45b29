import json
from itertools import combinations

import avro.compatibility as avro_compatibility
import avro.schema
import fastavro
import pytest

from schemas.events import BOOKS, TOPICS
from schemas.registry import (
    FolderRegistry,
    UnknownSchema,
    current_schema,
    schema_versions,
)


def can_read(reader, writer):
    checker = avro_compatibility.ReaderWriterCompatibilityChecker()
    result = checker.get_compatibility(avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer)))
    return result.compatibility is avro_compatibility.SchemaCompatibilityType.compatible


@pytest.mark.parametrize("topic", [*TOPICS, BOOKS])
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
    ids = [101, 201, 301, 401, 501, 601, 701, 801, 9001]
    assert [registry.id_for(topic) for topic in (*TOPICS, BOOKS)] == ids
    assert registry.schema(501).topic == "products"
    with pytest.raises(UnknownSchema, match="schema id 9 is unknown; known ids: \\[101"):
        registry.schema(9)


def test_golden_schemas_parse():
    assert {fastavro.parse_schema(current_schema(topic))["name"] for topic in TOPICS} >= {"headrace.events.v1.Purchase"}
