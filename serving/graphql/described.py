"""Descriptions of GraphQL's types, fields and arguments, from where REST and gRPC have them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from serving.request.descriptions import meaning


def describe(types: Mapping[Any, type[BaseModel]]) -> None:
    """Give types of the schema, and their fields, the descriptions of models."""
    for made, model in types.items():
        definition = made.__strawberry_definition__
        definition.description = model.__doc__
        for field in definition.fields:
            field.description = meaning(model, field.python_name)


def describe_query(query: Any, requests: Mapping[str, type[BaseModel]]) -> None:
    """Give the fields of the query the text of their functions, and the arguments of each those of its request."""
    for field in query.__strawberry_definition__.fields:
        field.description = field.base_resolver.wrapped_func.__doc__
        for argument in field.arguments:
            argument.description = meaning(requests[field.python_name], argument.python_name)
