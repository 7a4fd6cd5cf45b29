"""Schema ids: what a registry gives, and the one that is the schema folder itself.

The folder's ids are `100 · number of the topic + version`, where the versions of a topic are
the files `avro/history/<topic>.v<N>.avsc`. A committed version never changes, so neither does its id.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from fastavro import parse_schema

from schemas.events import BOOKS, TOPICS

NUMBERS = {**{topic: number for number, topic in enumerate(TOPICS, 1)}, BOOKS: 90}
"""Of topics, which their schemas' ids begin with."""


class Schema(NamedTuple):
    """A writer's schema: the topic it belongs to and its parsed form."""

    topic: str
    """By its full name, where that is one of ours; else empty."""
    parsed: Any
    named: Mapping[str, Any] = {}
    """What it refers to and does not hold, by name."""


class UnknownSchema(Exception):
    """No schema has this id."""


class RegistryUnavailable(Exception):
    """The registry cannot be reached, or refused a schema."""


class SchemaRegistry(Protocol):
    """Gives the id to write a topic with, and the schema behind an id.

    The decoder calls `schema` for every id that a batch brings, the server `id_for` for every topic it writes; an
    answer is kept, so that only the first call for each may block, up to the registry's timeout. `knows` never does.
    """

    def knows(self, topic: str) -> bool:
        """Return whether `id_for` will answer at once."""
        ...

    def id_for(self, topic: str) -> int:
        """Return the id of our own schema of a topic. May block on the network. Raises RegistryUnavailable."""

    def schema(self, schema_id: int) -> Schema:
        """Return the schema behind an id. May block once an id. Raises UnknownSchema, RegistryUnavailable."""


def _parsed(schema: dict[str, Any]) -> Mapping[str, Any]:
    parsed = parse_schema(schema)
    assert isinstance(parsed, Mapping)  # a record's schema stays a mapping
    return parsed


@lru_cache
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
        for topic, number in NUMBERS.items():
            for version, schema in schema_versions(topic).items():
                schema_id = 100 * number + version
                self._schemas[schema_id] = Schema(topic, _parsed(schema))
                self._newest[topic] = schema_id

    def knows(self, topic: str) -> bool:
        """Return True: nothing is asked of anybody."""
        return True

    def id_for(self, topic: str) -> int:
        """Return the id of our schema of a topic."""
        return self._newest[topic]

    def schema(self, schema_id: int) -> Schema:
        """Return the schema behind an id. Raises UnknownSchema."""
        if schema_id not in self._schemas:
            raise UnknownSchema(f"schema id {schema_id} is unknown; known ids: {sorted(self._schemas)}")
        return self._schemas[schema_id]
