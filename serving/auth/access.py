"""The scope that each HTTP route, RPC and GraphQL field needs, in one table.

A path that is not in the table needs `operate`, the highest scope: a route that somebody adds and forgets here is
closed. `tests/serving/test_access.py` walks every route, method and field that exists.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from starlette.routing import compile_path

Scope = Literal["recommend", "events", "catalogue", "privacy", "rules", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MEANINGS: Mapping[Scope, str] = {
    "recommend": "lists of items: recommendations, similar and popular items",
    "events": "send what visitors do",
    "catalogue": "send and remove products, and look at an item",
    "privacy": "erase a user, and read a user's history and features",
    "rules": "read, try and replace the book of rules",
    "operate": "metrics, live numbers, and every path that is not listed",
}
PRESETS: Mapping[str, tuple[Scope, ...]] = {
    "storefront": ("recommend", "events"),
    "backend": ("recommend", "events", "catalogue", "privacy"),
    "admin": SCOPES,
}
ANONYMOUS: frozenset[Scope] = frozenset(PRESETS["storefront"])
"""What HEADRACE_ALLOW_ANONYMOUS lets anybody do."""


class Access(NamedTuple):
    """The requirements of a call: one of `scopes` (none: open to all), and lists counted against the key's rate.

    A cost of 0 is taken by the call itself, when it knows for how many lists it was asked.
    """

    scopes: tuple[Scope, ...]
    cost: int = 1


FREE = Access((), 0)
HIGHEST = Access(("operate",))
_LISTS_IN_BODY = Access(("recommend",), 0)

HTTP: Mapping[tuple[str, str], Access] = {
    ("GET", "/"): FREE,
    ("GET", "/explorer/{name}"): FREE,
    ("GET", "/healthz"): FREE,
    ("GET", "/readyz"): FREE,
    ("GET", "/openapi.json"): FREE,  # the same for every installation, and in the source
    ("GET", "/docs"): FREE,
    ("GET", "/docs/{name}"): FREE,
    ("POST", "/v1/recommend"): _LISTS_IN_BODY,
    ("POST", "/v1/recommend/batch"): _LISTS_IN_BODY,
    ("GET", "/graphql"): _LISTS_IN_BODY,
    ("POST", "/graphql"): _LISTS_IN_BODY,
    ("GET", "/v1/items/{item}/similar"): Access(("recommend",)),
    ("GET", "/v1/popular"): Access(("recommend",)),
    ("POST", "/v1/events"): Access(("events", "catalogue", "privacy")),  # and `event_scope` for each event
    ("GET", "/v1/items/{item}"): Access(("catalogue",)),
    ("GET", "/v1/users"): Access(("privacy",)),
    ("GET", "/v1/users/{user}"): Access(("privacy",)),
    ("GET", "/v1/rules"): Access(("rules",)),
    ("PUT", "/v1/rules"): Access(("rules",)),
    ("GET", "/v1/rules/history"): Access(("rules",)),
    ("POST", "/v1/rules/preview"): Access(("rules",), 2),  # a list by each book
    ("POST", "/v1/rules/read"): Access(("rules",)),
    ("POST", "/v1/rules/lint"): Access(("rules",)),
    ("GET", "/v1/live"): HIGHEST,
    ("GET", "/metrics"): HIGHEST,
}
_SERVICE = "/headrace.v1.Headrace"
RPC: Mapping[str, Access] = {
    f"{_SERVICE}/Recommend": _LISTS_IN_BODY,
    f"{_SERVICE}/RecommendBatch": _LISTS_IN_BODY,
    f"{_SERVICE}/RecommendStream": _LISTS_IN_BODY,  # one for each message
    f"{_SERVICE}/SimilarItems": Access(("recommend",)),
    f"{_SERVICE}/Popular": Access(("recommend",)),
    # Load balancers, which have no key, check health; reflection shows no more than the source.
    "/grpc.health.v1.Health/Check": FREE,
    "/grpc.health.v1.Health/List": FREE,
    "/grpc.health.v1.Health/Watch": FREE,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": FREE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": FREE,
}
GRAPHQL: Mapping[str, Access] = {
    "recommend": Access(("recommend",)),
    "recommendBatch": _LISTS_IN_BODY,
    "similarItems": Access(("recommend",)),
    "popular": Access(("recommend",)),
}
EVENTS: Mapping[str, Scope] = {"product": "catalogue", "product_gone": "catalogue", "erasure": "privacy"}
"""Scopes of events by their type; all others need `events`."""

_PLAIN = {path for _, path in HTTP if "{" not in path}
_PATTERNS: dict[str, re.Pattern[str]] = {path: compile_path(path)[0] for _, path in HTTP if "{" in path}
_METHODS = {path: tuple(method for method, of in HTTP if of == path) for _, path in HTTP}


def template_of(path: str) -> str:
    """Return the path of the table that a request's path is an instance of, "" where there is none."""
    if path in _PLAIN:
        return path
    return next((template for template, pattern in _PATTERNS.items() if pattern.match(path)), "")


def methods_of(path: str) -> tuple[str, ...]:
    """Return the methods of the table for a request's path, none for an unknown path."""
    return _METHODS.get(template_of(path), ())


def access_of(method: str, path: str) -> Access:
    """Return what an HTTP request needs; HIGHEST for one that is not in the table."""
    return HTTP.get((method, template_of(path)), HIGHEST)


def access_of_rpc(path: str) -> Access:
    """Return what a call needs, by `/package.Service/Method`; HIGHEST for one that is not in the table."""
    return RPC.get(path, HIGHEST)


def event_scope(event: Any) -> Scope:
    """Return the scope an event of a POST needs, whatever it is."""
    kind = event.get("type") if isinstance(event, dict) else None
    return EVENTS.get(kind, "events") if isinstance(kind, str) else "events"
