"""The description of the API is true: whatever schemathesis thinks of from it, answers are as it says."""

import copy

import pytest
import schemathesis
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error, response_headers_conformance

# Imported before a server's threads run: `from_dict` would import it lazily, and Python before 3.11.5 fails with "AST
# constructor recursion depth mismatch" where pytest rewrites a module while another thread compiles one (gh-106905).
from schemathesis.specs.openapi import schemas as schemas
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from schemas.json_events import FIELDS, LINE_FIELDS, TOPIC_OF_TYPE, InvalidEvent, event_from_json
from serving.auth.access import HTTP
from serving.http.description.statuses import EXAMPLES

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea", brand="Acme")])
    with running(tmp_path_factory.mktemp("openapi"), recommender) as found:
        yield found


@pytest.fixture(scope="module")
def document(server):
    return server.client.get("/openapi.json").json()


def closed(schema):
    """Return a schema that takes no field which it does not name, so that no answer has one."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    end = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return end | {name: closed(one) for name, one in schema.items()}


def operations(document):
    return [(method.upper(), path, of) for path, methods in document["paths"].items() for method, of in methods.items()]


def test_every_answer_is_as_it_is_described(server, document):
    strict = copy.deepcopy(document) | {"components": closed(document["components"])}
    strict["paths"]["/v1/rules"]["get"]["responses"]["200"]["content"]["application/yaml"] = {}  # it would be parsed
    found = [one.ok() for one in schemathesis.openapi.from_dict(strict).get_all_operations()]
    assert len(found) == len(operations(document)) > 15
    for operation in found:

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(base_url=server.url, checks=CHECKS)

        check()


def test_every_route_is_described_with_names_that_last(document):
    described = {(method, path) for method, path, _ in operations(document)}
    pages = {"/", "/docs", "/openapi.json", "/explorer/{name}", "/docs/{name}"}
    assert described == {(method, path) for method, path in HTTP if path not in pages}
    names = [of["operationId"] for _, _, of in operations(document)]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"]}
    assert all(set(of["tags"]) <= tags and of["summary"] for _, _, of in operations(document))


def test_every_field_and_parameter_has_a_description(document):
    fields = [
        (name, field, one)
        for name, schema in document["components"]["schemas"].items()
        for field, one in schema.get("properties", {}).items()
    ]
    parameters = [(path, one["name"], one) for _, path, of in operations(document) for one in of.get("parameters", [])]
    assert len(fields) > 150
    assert [(where, name) for where, name, one in fields + parameters if not one.get("description")] == []
    assert [name for name, one in document["components"]["schemas"].items() if not one.get("description")] == []


def test_every_example_of_a_body_is_taken_as_described(server, document):
    bodies = [(method, path, of) for method, path, of in operations(document) if "requestBody" in of]
    assert len(bodies) == 8
    for method, path, of in bodies:
        params = {"author": "eva"} if (method.upper(), path) == ("PUT", "/v1/rules") else {}
        for kind, content in of["requestBody"]["content"].items():
            answer = server.client.request(
                method, path, json=content["example"], params=params, headers={"Content-Type": kind}
            )
            assert str(answer.status_code) in of["responses"], answer.text
            assert answer.is_success, answer.text


SAMPLES = {
    "ts_ms": 1_796_070_000_000, "ts": "2026-11-30T19:00:00Z", "context": {"a": "b"}, "attributes": {"a": None},
    "lines": [{"item": "tea"}], "replace": True, "price": 4.5, "quantity": 2.0, "discount": 0.5, "stars": 4.0,
    "margin": 0.3, "propensity": 0.5, "stock": 3, "position": 0,
}  # fmt: skip
FIELDS_OF_EVENTS = sorted({"ts_ms", "ts", "query", "stars", *(name for names in FIELDS.values() for name in names)})


def is_taken(event):
    try:
        event_from_json(event, SAMPLES["ts_ms"])
    except InvalidEvent:
        return False
    return True


def test_an_event_of_each_type_has_the_fields_that_the_door_takes_and_needs(document):
    schemas = document["components"]["schemas"]
    of_type = schemas["Event"]["discriminator"]["mapping"]
    assert set(of_type) == set(TOPIC_OF_TYPE)
    for kind, reference in of_type.items():
        schema = schemas[reference.rpartition("/")[2]]
        given = {name: SAMPLES.get(name, "tea") for name in schema["required"]} | {"type": kind}
        if kind not in ("product", "product_gone", "impression", "erasure"):
            given["user"] = "ann"  # or a session
        if kind == "purchase":
            given["item"] = "tea"  # or lines
        event = {"event_id": "e", **given} if "event_id" in schema["properties"] else given
        assert is_taken(event), (kind, event)
        for name in schema["required"]:
            assert not is_taken({one: value for one, value in event.items() if one != name}), (kind, name)
        for name in FIELDS_OF_EVENTS:
            whole = {one: value for one, value in event.items() if (one, name) != ("item", "lines")}
            more = {**whole, name: whole.get(name, SAMPLES.get(name, "tea"))}
            assert is_taken(more) == (name in schema["properties"]), (kind, name)
            if name in schema["properties"] and (kind, name) != ("purchase", "item"):
                other = {"session": "s"} if "session" in schema["properties"] else {}
                nullable = {"type": "null"} in schema["properties"][name].get("anyOf", ())
                assert is_taken({**event, **other, name: None}) == nullable, (kind, name)
    assert set(schemas["OrderLine"]["properties"]) == set(LINE_FIELDS)


def test_the_example_of_a_wrong_field_is_what_a_server_says(server):
    error = server.client.post("/v1/recommend", json={"count": 300}).json()["error"]
    assert (error["field"], error["message"]) == EXAMPLES[422]
