"""The OpenAPI document, made of the routes' parameters, the table of operations and the table of access."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from serving.auth.access import HTTP, MEANINGS
from serving.http.bodies import BOOK, JSON
from serving.http.description.errors import Error
from serving.http.description.operations import (
    OPERATIONS,
    TAGS,
    Model,
    Operation,
    answers_of,
    models_of,
)
from serving.http.description.statuses import EXAMPLES, HEADERS, REASONS

REF = "#/components/schemas/{model}"
ABOUT = """Live recommendations for shops. Errors have one form: `{"error": {"field": …, "message": …}}`.

Bodies are JSON (`Content-Type: application/json`), up to 1 MiB, and may be compressed (`Content-Encoding: gzip`).
Every path answers OPTIONS, and HEAD where it answers GET."""
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as `Authorization: Bearer …`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key"},
}
Json = dict[str, Any]


def openapi(routes: Sequence[BaseRoute]) -> Json:
    """Return the document."""
    document = get_openapi(title="headrace", version=version("headrace"), description=ABOUT, routes=routes)
    schemas = _Schemas([model for key in OPERATIONS for model in models_of(key)])
    for path, methods in document["paths"].items():
        for method, found in methods.items():
            key = method.upper(), path
            methods[method] = _operation(key, found.get("parameters", []), schemas)
    document["components"] = {"schemas": schemas.definitions, "securitySchemes": KEYS}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return document


class _Schemas:
    """The schemas of all models, each once under its name."""

    def __init__(self, models: Sequence[Model]) -> None:
        modes: list[tuple[Model, Any]] = [(model, "validation") for model in dict.fromkeys(models)]
        found, defined = models_json_schema(modes, ref_template=REF)
        self._of = {model: schema for (model, _), schema in found.items()}
        self.definitions: Json = _tidied(defined["$defs"])

    def of(self, model: Model) -> Json:
        return dict(self._of[model])


def _tidied(schema: Any) -> Any:
    """Return a schema as generators of clients read it.

    Defaults are in descriptions: openapi-typescript demands a property with a default, also from who calls. Pydantic
    writes `patternProperties` for keys with a pattern, of which generators make no type.
    """
    if isinstance(schema, list):
        return [_tidied(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {name: _tidied(one) for name, one in schema.items() if name != "default"}
    if schema.get("default") not in (None, "", [], {}) and "description" in tidy:
        tidy["description"] += f" (default: `{json.dumps(schema['default'])}`)"
    patterns = tidy.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) == 1:
        ((pattern, values),) = patterns.items()
        tidy |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        del tidy["patternProperties"]
    return tidy


def _operation(key: tuple[str, str], parameters: list[Json], schemas: _Schemas) -> Json:
    operation = OPERATIONS[key]
    described: Json = {"operationId": operation.name, "tags": [operation.tag], "summary": operation.summary}
    scopes = HTTP[key].scopes
    if scopes:
        needed = " or ".join(f"`{scope}` ({MEANINGS[scope]})" for scope in scopes)
        described["description"] = f"Needs an API key with the scope {needed}, where the server has keys."
        described["security"] = [{}, *({name: []} for name in KEYS)]
    if found := _parameters(parameters, operation.parameters):
        described["parameters"] = found
    if operation.takes is not None:
        described["requestBody"] = _body(operation, schemas.of(operation.takes))
    first = next(iter(operation.answers))
    described["responses"] = {
        str(status): _response(status, answer, _headers(operation, status, first), schemas)
        for status, answer in sorted(answers_of(key).items())
    }
    if operation.answers_in_yaml:
        described["responses"][str(first)]["content"][BOOK[1]] = {"schema": {"type": "string"}}
    return described


def _parameters(found: Sequence[Json], more: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the parameters that the framework knows, with more about them, and those it does not know."""
    by_name: dict[str, Json] = {}
    for one in (*found, *more):
        by_name[one["name"]] = {**by_name.get(one["name"], {}), **one}
    return [one | {"schema": _given(one["schema"])} for one in by_name.values()]


def _given(schema: Json) -> Json:
    """Return the schema of a parameter that is given: null is said by leaving it out."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return {**kinds[0], **{name: one for name, one in schema.items() if name != "anyOf"}} if len(kinds) == 1 else schema


def _body(operation: Operation, schema: Json) -> Json:
    if operation.takes_many:
        several = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1000}
        schema = {"anyOf": [several, schema]}
    types = BOOK[:2] if operation.in_yaml else JSON  # the other names of YAML are taken, too
    required = operation.name != "recommend"  # without a body it is a request without fields
    shown = {"schema": schema, "example": operation.example}
    return {"required": required, "content": dict.fromkeys(types, shown)}


def _response(status: int, answer: Model | str, headers: Mapping[str, str], schemas: _Schemas) -> Json:
    response: Json = {"description": _description(status, answer)}
    if isinstance(answer, type):
        shown: Json = {"schema": schemas.of(answer)}
        if answer is Error:
            shown["example"] = {"error": dict(zip(("field", "message"), EXAMPLES[status], strict=True))}
        response["content"] = {"application/json": shown}
    elif answer:
        response["content"] = {answer: {"schema": {"type": "string"}}}
    if headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}, "required": True}
            for name, text in headers.items()
        }
    return response


def _description(status: int, answer: Model | str) -> str:
    """Return what an answer says: of an error what its status says, and more where it has more."""
    if not isinstance(answer, type):
        return REASONS.get(status, "The answer")
    own = (answer.__doc__ or "").strip()
    if not issubclass(answer, Error):
        return own
    return REASONS[status] if answer is Error else f"{REASONS[status]}. {own}"


def _headers(operation: Operation, status: int, first: int) -> Mapping[str, str]:
    """Return the headers that an answer always has, beside those of HTTP, with what they say."""
    if status in (first, 304):
        return operation.headers
    return {} if status in operation.answers else HEADERS.get(status, {})
