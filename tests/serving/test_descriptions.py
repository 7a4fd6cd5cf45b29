"""Every field means the same over REST, GraphQL and gRPC: the descriptions come from one place."""

import json
import re
import textwrap
from pathlib import Path

import pytest

from serving.graphql.schema import Query, _Schema
from serving.request.descriptions import MESSAGES, meaning

PROTO = Path(__file__).parents[2] / "serving" / "proto" / "headrace.proto"
MESSAGE, FIELD = re.compile(r"message (\w+) \{"), re.compile(r"  (?:\w+ )?[\w.<>, ]+ (\w+) = \d+;")
OF_GRAPHQL = {"Request": "RecommendRequest"}
"""Types with another name than the message."""
CALLS = {
    "recommend": "RecommendRequest", "recommendBatch": "BatchRequest", "similarItems": "SimilarItemsRequest",
    "popular": "PopularRequest",
}  # fmt: skip


def wrapped(text):
    return textwrap.wrap(text, 114, break_on_hyphens=False) or [""]


def commented(proto):
    """Return the text of a .proto with the comments that its messages and fields are to have."""
    lines, message = [], None
    for line in proto.splitlines():
        if found := MESSAGE.match(line):
            message = MESSAGES[found[1]]
        comment = ""
        if found:
            comment = message.__doc__
        elif message and (field := FIELD.match(line)):
            comment = meaning(message, field[1])
        elif message and line.lstrip().startswith("//"):
            continue
        indent = "" if found else "  "
        if found:  # those of the message before it
            while lines and lines[-1].startswith("//"):
                lines.pop()
        lines += [f"{indent}// {one}".rstrip() for text in comment.splitlines() for one in wrapped(text)] + [line]
    return "\n".join(lines) + "\n"


def test_the_comments_of_the_proto_are_the_descriptions():
    text = PROTO.read_text()
    assert set(MESSAGE.findall(text)) == set(MESSAGES)
    expected = commented(text)
    assert text == expected, f"make it\n{expected}"


@pytest.fixture(scope="module")
def introspected():
    kinds = (
        "kind name description fields { name description args { name description } } inputFields { name description }"
    )
    found = _Schema(Query).execute_sync(f"{{ __schema {{ types {{ {kinds} }} }} }}")
    assert found.errors is None
    return {one["name"]: one for one in json.loads(json.dumps(found.data))["__schema"]["types"]}


def snake(name):
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


def test_types_and_fields_of_graphql_have_the_descriptions(introspected):
    for name in ("Answer", "Recommendation", "Reason", "RuleTrace", "Filters", "Request"):
        model, kind = MESSAGES[OF_GRAPHQL.get(name, name)], introspected[name]
        assert kind["description"] == model.__doc__
        for field in kind["fields"] or kind["inputFields"]:
            assert field["description"] == meaning(model, snake(field["name"])) != "", (name, field["name"])


def test_queries_and_arguments_of_graphql_have_the_descriptions(introspected):
    queries = {one["name"]: one for one in introspected["Query"]["fields"]}
    assert set(queries) == set(CALLS)
    for name, query in queries.items():
        assert query["description"]
        for argument in query["args"]:
            expected = meaning(MESSAGES[CALLS[name]], snake(argument["name"]))
            assert argument["description"] == expected != "", (name, argument["name"])


def test_every_field_of_a_message_is_described():
    assert [(name, field) for name, of in MESSAGES.items() for field in of.model_fields if not meaning(of, field)] == []
