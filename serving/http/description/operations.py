"""Every operation of REST: its name, what it takes, and what it answers, in one table.

Parameters are FastAPI's own, from the routes; what a key needs, and the statuses that come of it, from the table of
access. `tests/serving/test_openapi_statuses.py` provokes each status that stands here; `test_openapi.py` finds no
other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from serving.auth.access import HTTP
from serving.http.description import books, errors, events, graphql, health, shop
from serving.request import answer_schema, requests
from serving.rules.model import Book

Model = type[BaseModel]

LISTS, EVENTS, RULES, CATALOGUE, USERS, OPERATION = "lists", "events", "rules", "catalogue", "users", "operation"
TAGS = {
    LISTS: "Lists of items for visitors",
    EVENTS: "What visitors do, and products",
    RULES: "The book of rules, placements and experiments",
    CATALOGUE: "What is known of items",
    USERS: "What is known of visitors",
    OPERATION: "Health, metrics and live numbers",
}
CACHED = {"ETag": "Name of this list; send it back as `If-None-Match`", "Cache-Control": "How long a cache may keep it"}


class Operation(NamedTuple):
    """One operation: its stable name, and what goes in and out."""

    name: str
    tag: str
    summary: str
    answers: Mapping[int, Model | str]
    """Of each status its model, or a media type; the errors of keys, bodies and faults come by themselves."""
    takes: Model | None = None
    example: Any = None
    """A body that is taken in any shop."""
    takes_many: bool = False
    """Whether a list of bodies is taken too."""
    in_yaml: bool = False
    """Whether bodies may be YAML."""
    answers_in_yaml: bool = False
    """Whether the first answer is YAML for those who wish."""
    errors: tuple[int, ...] = ()
    """Further errors."""
    faults_inside: bool = False
    """Whether faults and spent rates are in the body of a 200."""
    headers: Mapping[str, str] = {}
    """Of the first answer."""
    parameters: Sequence[Mapping[str, Any]] = ()
    """What the framework does not know of, and more of what it knows, by name."""


LIST: Mapping[int, Model | str] = {200: answer_schema.Answer}
CACHED_LIST: Mapping[int, Model | str] = {200: answer_schema.Answer, 304: ""}
RULE = {"id": "clay-week", "action": "boost", "where": 'brand == "Clay"', "factor": 1.5}
BOOK = {"rules": [RULE]}
EVENTS_EXAMPLE = [
    {"type": "product", "item": "tea", "title": "Green tea", "price": 4.5, "stock": 80},
    {"type": "view", "user": "ann", "item": "tea"},
    {"type": "purchase", "user": "ann", "order_id": "o-17", "lines": [{"item": "tea", "quantity": 2, "price": 4.5}]},
]
AUTHOR = {"name": "author", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 100}}
QUERY = '{ recommend(user: "ann", count: 3) { items { item title } } }'
"""In the examples."""

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/recommend"): Operation(
        "recommend", LISTS, "Items for a user, a session, or items in context", LIST,
        takes=requests.RecommendRequest, errors=(422,), example={"user": "ann", "placement": "home", "count": 3},
    ),
    ("POST", "/v1/recommend/batch"): Operation(
        "recommendBatch", LISTS, "Many requests, answered together, in order", {200: answer_schema.BatchAnswer},
        takes=requests.BatchRequest, errors=(422,),
        example={"requests": [{"user": "ann", "count": 3}, {"items": ["tea"], "placement": "product"}]},
    ),
    ("GET", "/v1/items/{item}/similar"): Operation(
        "similarItems", LISTS, "Items that occur together with one", CACHED_LIST, errors=(422, 503), headers=CACHED,
    ),
    ("GET", "/v1/popular"): Operation(
        "popular", LISTS, "The most popular items of the shop, a category, a brand or a country", CACHED_LIST,
        errors=(422, 503), headers=CACHED,
    ),
    ("GET", "/graphql"): Operation(
        "graphqlQuery", LISTS, "A GraphQL query in the address", {200: graphql.GraphQLAnswer}, errors=(400,),
        faults_inside=True, parameters=(
            {"name": "query", "in": "query", "required": True, "description": "GraphQL",
             "schema": {"type": "string"}, "example": QUERY},
            {"name": "variables", "in": "query", "description": "Values of its variables, as a JSON object",
             "schema": {"type": "string"}},
            {"name": "operationName", "in": "query", "description": "Which of its operations to run",
             "schema": {"type": "string"}},
        ),
    ),
    ("POST", "/graphql"): Operation(
        "graphql", LISTS, "A GraphQL query", {200: graphql.GraphQLAnswer}, takes=graphql.GraphQLRequest,
        errors=(400,), faults_inside=True, example={"query": QUERY},
    ),
    ("POST", "/v1/events"): Operation(
        "sendEvents", EVENTS, "1 to 1,000 events, all of them or none", {202: events.EventsTaken},
        takes=events.Event, takes_many=True, errors=(400, 422, 503), example=EVENTS_EXAMPLE,
    ),
    ("GET", "/v1/items/{item}"): Operation(
        "item", CATALOGUE, "An item's facts, neighbours and popularity", {200: shop.Item}, errors=(404, 422, 503)
    ),
    ("GET", "/v1/users"): Operation("users", USERS, "Users seen lately", {200: shop.Users}, errors=(503,)),
    ("GET", "/v1/users/{user}"): Operation(
        "user", USERS, "A user's latest events and preferences", {200: shop.User}, errors=(422, 503)
    ),
    ("GET", "/v1/rules"): Operation(
        "rules", RULES, "The live book", {200: books.LiveBook}, errors=(422, 503), answers_in_yaml=True,
        headers={"ETag": "Version of the book; send it back as `If-Match` with the next one"},
    ),
    ("PUT", "/v1/rules"): Operation(
        "putRules", RULES, "Make a book the live one", {201: books.BookPut}, takes=Book, in_yaml=True,
        errors=(409, 422, 503), example=BOOK, parameters=(AUTHOR,),
    ),
    ("GET", "/v1/rules/history"): Operation(
        "rulesHistory", RULES, "The newest versions of the book", {200: books.BookHistory}, errors=(503,)
    ),
    ("POST", "/v1/rules/preview"): Operation(
        "previewRules", RULES, "Answers to one request by the live book and by another", {200: books.Preview},
        takes=books.PreviewRequest, errors=(422, 503), example={"book": BOOK, "request": {"user": "ann", "count": 3}},
    ),
    ("POST", "/v1/rules/read"): Operation(
        "readRules", RULES, "Check a book and return it as JSON", {200: books.BookRead}, takes=Book, in_yaml=True,
        errors=(422,), example=BOOK,
    ),
    ("POST", "/v1/rules/lint"): Operation(
        "lintRules", RULES, "Contradictions, and rules that match nothing", {200: books.Findings}, takes=Book,
        in_yaml=True, errors=(422,), example=BOOK,
    ),
    ("GET", "/v1/live"): Operation("live", OPERATION, "Counters and ages of this moment", {200: health.Live}),
    ("GET", "/metrics"): Operation("metrics", OPERATION, "Metrics for Prometheus", {200: "text/plain"}),
    ("GET", "/healthz"): Operation("healthz", OPERATION, "Whether the server is alive", {200: health.Health}),
    ("GET", "/readyz"): Operation(
        "readyz", OPERATION, "Whether there is something to answer from",
        {200: health.Readiness, 503: health.Readiness},
    ),
}  # fmt: skip
SPECIAL: Mapping[tuple[str, int], Model] = {
    ("sendEvents", 422): errors.EventsRefused,
    ("sendEvents", 413): errors.EventsRefused,
    ("sendEvents", 503): errors.EventsUnavailable,
    ("putRules", 409): errors.BookConflicted,
    **{(name, 422): errors.BookRefused for name in ("putRules", "previewRules", "readRules", "lintRules")},
}
"""Errors with more than the one form of all."""


def answers_of(key: tuple[str, str]) -> dict[int, Model | str]:
    """Return every status that an operation sends, with what it carries."""
    operation, access = OPERATIONS[key], HTTP[key]
    statuses = set(operation.errors)
    if access.scopes:
        statuses |= {401, 403} if operation.faults_inside else {401, 403, 429, 500}
    if operation.takes is not None:
        statuses |= {400, 413, 415}
    special = {status: model for (name, status), model in SPECIAL.items() if name == operation.name}
    return {**operation.answers, **dict.fromkeys(sorted(statuses), errors.Error), **special}


def models_of(key: tuple[str, str]) -> list[Model]:
    """Return the models that an operation takes and answers with."""
    found: list[Any] = [OPERATIONS[key].takes, *answers_of(key).values()]
    return [model for model in found if isinstance(model, type)]
