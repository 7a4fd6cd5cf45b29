"""Schema ids: from a Confluent-compatible registry, or from the schema folder itself.

The folder's ids are `100 · (index of the topic in TOPICS + 1) + version`, where the
versions of a topic are the files `avro/history/<topic>.v<N>.avsc`. A committed
version never changes, so neither does its id.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from fastavro import parse_schema

from schemas.events import TOPICS

JSON_TYPE = "application/vnd.schemaregistry.v1+json"


class Schema(NamedTuple):
    """A writer's schema: the topic it belongs to and its parsed form."""

    topic: str
    parsed: Mapping[str, Any]


class UnknownSchema(Exception):
    """No schema has this id."""


class RegistryUnavailable(Exception):
    """The registry cannot be reached, or refused a schema."""


class SchemaRegistry(Protocol):
    """Gives the id to write a topic with, and the schema behind an id."""

    def id_for(self, topic: str) -> int: ...

    def schema(self, schema_id: int) -> Schema: ...


def _parsed(schema: dict[str, Any]) -> Mapping[str, Any]:
    parsed = parse_schema(schema)
    assert isinstance(parsed, Mapping)  # a record's schema stays a mapping
    return parsed


def current_schema(topic: str) -> dict[str, Any]:
    """Return a topic's newest schema, as in the file."""
    text = files("schemas").joinpath("avro", f"{topic}.avsc").read_text()
    return dict(json.loads(text))


def schema_versions(topic: str) -> dict[int, dict[str, Any]]:
    """Return every committed version of a topic's schema, by number."""
    found = {}
    for path in files("schemas").joinpath("avro", "history").iterdir():
        name, _, rest = path.name.rpartition(".v")
        if name == topic:
            found[int(rest.removesuffix(".avsc"))] = dict(json.loads(path.read_text()))
    return dict(sorted(found.items()))


class FolderRegistry:
    """Ids from the schema folder: nothing to run, nothing to reach."""

    def __init__(self) -> None:
        self._schemas: dict[int, Schema] = {}
        self._newest: dict[str, int] = {}
        for index, topic in enumerate(TOPICS):
            for version, schema in schema_versions(topic).items():
                schema_id = 100 * (index + 1) + version
                self._schemas[schema_id] = Schema(topic, _parsed(schema))
                self._newest[topic] = schema_id

    def id_for(self, topic: str) -> int:
        return self._newest[topic]

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self._schemas:
            raise UnknownSchema(f"schema id {schema_id} is unknown; known ids: {sorted(self._schemas)}")
        return self._schemas[schema_id]


class ConfluentRegistry:
    """Ids from a registry that speaks Confluent's REST interface; every answer is remembered."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, Schema] = {}

    def id_for(self, topic: str) -> int:
        """Return the id of the topic's newest schema, registering it when the registry does not have it."""
        if topic not in self._ids:
            body = {"schema": json.dumps(current_schema(topic))}
            self._ids[topic] = self._ask(f"/subjects/{topic}-value/versions", body)["id"]
        return self._ids[topic]

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self._schemas:
            try:
                text = self._ask(f"/schemas/ids/{schema_id}")["schema"]
            except UnknownSchema:
                raise UnknownSchema(f"schema id {schema_id} is unknown to the registry {self._url}") from None
            schema = json.loads(text)
            self._schemas[schema_id] = Schema(self._topic_of(schema), _parsed(schema))
        return self._schemas[schema_id]

    def _topic_of(self, schema: dict[str, Any]) -> str:
        for topic in TOPICS:
            if current_schema(topic)["name"] == schema.get("name"):
                return topic
        return ""

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": JSON_TYPE, "Accept": JSON_TYPE})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise UnknownSchema(path) from error
            detail = error.read(500).decode(errors="replace")
            raise RegistryUnavailable(f"registry {self._url} answered {error.code} to {path}: {detail}") from error
        except OSError as error:
            raise RegistryUnavailable(f"registry {self._url} cannot be reached: {error}") from error


def open_registry(url: str) -> SchemaRegistry:
    """Return the registry at `url`, or the folder's own for an empty url."""
    return ConfluentRegistry(url) if url else FolderRegistry()
