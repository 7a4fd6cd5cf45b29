"""Schema ids from a Confluent-compatible registry, through Confluent's own client."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro import parse_schema

from schemas.registry import NUMBERS, RegistryUnavailable, Schema, UnknownSchema, current_schema

UNKNOWN_IDS_S = 5.0
"""How long an id that the registry does not know is not requested again."""
NO_SUCH = (40401, 40402, 40403)
"""Confluent's codes for a subject, version or schema that is not there; any other 404 is a wrong address."""
MOST_REFERENCES = 100

T = TypeVar("T")


def without_credentials(url: str) -> tuple[str, str]:
    """Return the url, or several joined by commas, without user and password, and these as `user:password`, or empty.

    >>> without_credentials("https://key:s%2Fecret@registry:8081/path")
    ('https://registry:8081/path', 'key:s/ecret')
    """
    clean, credentials = list[str](), ""
    for one in url.split(","):
        parts = urlsplit(one.strip())
        user, _, host = parts.netloc.rpartition("@")
        credentials = credentials or unquote(user)
        clean.append(urlunsplit(parts._replace(netloc=host)).rstrip("/"))
    return ",".join(clean), credentials


class ConfluentRegistry:
    """Ids and schemas of a registry, each requested once; `config` goes to Confluent's client as it is."""

    def __init__(self, url: str, config: Mapping[str, str] | None = None, timeout_s: float = 2.0) -> None:
        self._url, credentials = without_credentials(url)
        own: dict[str, Any] = {"url": self._url, "timeout": timeout_s, "max.retries": 0}
        if credentials:
            own["basic.auth.user.info"] = credentials
        try:
            self._client = SchemaRegistryClient({**own, **(config or {})})
        except (ValueError, TypeError, OSError) as error:
            raise RegistryUnavailable(f"schema_registry_url or schema_registry_config cannot be: {error}") from None
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, Schema] = {}
        self._unknown: dict[int, float] = {}

    def knows(self, topic: str) -> bool:
        """Return whether `id_for` will answer without a request to the registry."""
        return topic in self._ids

    def id_for(self, topic: str) -> int:
        """Return the id of our schema of the topic, registering it when the registry does not have it.

        Raises RegistryUnavailable.
        """
        if topic not in self._ids:
            ours = current_schema(topic)
            schema, subject = RegistrySchema(orjson.dumps(ours).decode(), "AVRO"), f"{topic}-value"
            try:
                found = self._ask(lambda: self._client.lookup_schema(subject, schema).schema_id, f"subject {subject}")
            except UnknownSchema:
                found = self._ask(lambda: self._client.register_schema(subject, schema), f"subject {subject}")
            if found is None:
                raise RegistryUnavailable(f"registry {self._url} gave no id for subject {subject}")
            self._schemas[found] = Schema(topic, parse_schema(ours))
            self._ids[topic] = found
        return self._ids[topic]

    def schema(self, schema_id: int) -> Schema:
        """Return the schema behind an id; raises UnknownSchema, RegistryUnavailable."""
        if schema_id not in self._schemas:
            unknown = UnknownSchema(f"schema id {schema_id} is unknown to the registry {self._url}")
            if time.monotonic() < self._unknown.get(schema_id, 0.0):
                raise unknown
            try:
                found = self._ask(lambda: self._client.get_schema(schema_id), f"schema id {schema_id}")
            except UnknownSchema:
                if len(self._unknown) > 10_000:  # made up, one after the other
                    self._unknown.clear()
                self._unknown[schema_id] = time.monotonic() + UNKNOWN_IDS_S
                raise unknown from None
            self._schemas[schema_id] = self._read(schema_id, found)
        return self._schemas[schema_id]

    def _read(self, schema_id: int, found: RegistrySchema) -> Schema:
        kind = found.schema_type or "AVRO"
        if kind != "AVRO":
            return Schema("", f"{kind} schema")  # a type of no name that we know
        try:
            parsed = orjson.loads(found.schema_str or "")
        except ValueError:
            parsed = found.schema_str  # a bare name, as some registries give it
        named: dict[str, Any] = {}
        self._add_references(found, named, schema_id)
        return Schema(_topic_of(parsed), parsed, named)

    def _add_references(self, schema: RegistrySchema, named: dict[str, Any], schema_id: int) -> None:
        for one in schema.references or []:
            if one.name in named or one.name is None or one.subject is None or one.version is None:
                continue
            if len(named) == MOST_REFERENCES:
                raise UnknownSchema(f"schema id {schema_id} refers to more than {MOST_REFERENCES} others")
            get_version = partial(self._client.get_version, one.subject, one.version)
            other = self._ask(get_version, f"version {one.version} of subject {one.subject}").schema
            named[one.name] = orjson.loads(other.schema_str or "null")
            self._add_references(other, named, schema_id)

    def _ask(self, call: Callable[[], T], what: str) -> T:
        """Return what the registry answers; raises UnknownSchema for what it does not have, RegistryUnavailable."""
        try:
            return call()
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in NO_SUCH:
                raise UnknownSchema(what) from None
            raise RegistryUnavailable(
                f"registry {self._url} answered {error.http_status_code} to {what}: {error.error_message}"
            ) from None
        except Exception as error:  # the client lets those of its HTTP library through
            raise RegistryUnavailable(f"registry {self._url} cannot be reached: {error!r}"[:500]) from None


def _topic_of(parsed: Any) -> str:
    """Return the topic whose schema has this full name, else nothing."""
    if not isinstance(parsed, dict) or "name" not in parsed:
        return ""
    name = parsed["name"] if "." in parsed["name"] else f"{parsed.get('namespace', '')}.{parsed['name']}"
    for topic in NUMBERS:
        ours = current_schema(topic)
        if name == f"{ours['namespace']}.{ours['name']}":
            return topic
    return ""
