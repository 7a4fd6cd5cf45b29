"""Every status that the description of the API names is sent by some call, with the body that it says."""

import gzip
import time

import httpx
import jsonschema
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from flows.log.contract import LogUnavailable
from serving.app.follower import Follower
from serving.auth.access import SCOPES
from serving.auth.api_keys import make_key, write_keys
from serving.catalogue.catalogue import Catalogue
from serving.engine.pipeline import Pipeline
from serving.http import app as http_app
from serving.http import rules_api
from serving.http.description.operations import OPERATIONS
from serving.http.events_api import Events
from serving.http.explorer_api import Explorer

LONG, LARGE = "x" * 257, gzip.compress(b" " * (1 << 20) + b"{}")
WRONG = {
    "recommend": {"json": {"count": 0}},
    "recommendBatch": {"json": {"requests": []}},
    "similarItems": {"params": {"count": 0}},
    "popular": {"params": {"scope": "brand"}},
    "sendEvents": {"json": [{"type": "view", "user": "ann", "item": "tea"}, {"type": "rating", "user": "ann"}]},
    "item": {"id": LONG},
    "user": {"id": LONG},
    "rules": {"params": {"format": "xml"}},
    "putRules": {"json": {"rules": [{"id": "a", "action": "boots"}]}},
    "previewRules": {"json": {"at": "noon"}},
    "readRules": {"json": {"rules": [{"id": "a"}, {"id": "a"}]}},
    "lintRules": {"json": {"rules": 1}},
}
"""Calls with a wrong field."""
FAULTS = {
    "recommend": (Pipeline, "answer"),
    "recommendBatch": (Pipeline, "answer"),
    "similarItems": (http_app, "_same_for_everybody"),
    "popular": (http_app, "_same_for_everybody"),
    "sendEvents": (Events, "_take"),
    "item": (Explorer, "item"),
    "users": (Explorer, "users"),
    "user": (Explorer, "user"),
    "rules": (rules_api, "read_record"),
    "putRules": (rules_api, "put_book"),
    "rulesHistory": (rules_api, "history"),
    "previewRules": (rules_api, "preview"),
    "readRules": (rules_api, "plain"),
    "lintRules": (rules_api, "lint"),
    "live": (Explorer, "live"),
    "metrics": (http_app, "exposition"),
}
"""What is broken for a 500."""


class Caller:
    """Calls operations with their examples, by keys of several kinds."""

    def __init__(self, server, store):
        self.server, self.store = server, store
        kept = {
            "all": make_key("all", SCOPES), "none": make_key("none", ()), "slow": make_key("slow", SCOPES, 2),
        }  # fmt: skip
        write_keys(server.keys, [entry for _, entry in kept.values()])
        server.guard.follow()
        self.keys = {name: secret for name, (secret, _) in kept.items()}

    def call(self, key, by="all", id="tea", headers=None, params=None, **body):
        (method, path), operation = key, OPERATIONS[key]
        if operation.example is not None and not body:
            body = {"json": operation.example}
        if "content" in body:
            headers = {"Content-Type": "application/json"} | (headers or {})
        given = {"author": "eva"} if operation.name == "putRules" else {}
        if operation.name == "graphqlQuery":
            given = {"query": "{ popular { items { item } } }"}
        # A connection for each call: uvicorn closes one after a 500.
        return httpx.request(
            method, self.server.url + path.replace("{item}", id).replace("{user}", id), params=given | (params or {}),
            headers=({"X-API-Key": self.keys[by]} if by else {}) | (headers or {}), **body,
        )  # fmt: skip


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    recommender, store = recommender_of(shop_events(), [product("tea", "Tea", brand="Acme")])
    with running(tmp_path_factory.mktemp("statuses"), recommender, require_key=True) as server:
        caller = Caller(server, store)
        caller.call(("PUT", "/v1/rules"))
        deadline = time.monotonic() + 20
        while recommender.shop.rules.version == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        yield caller


def raising(error):
    def broken(*args, **named):
        raise error

    return broken


def provoked(caller, monkeypatch, key, status):
    """Return the answer of a call that ends with a status."""
    operation = OPERATIONS[key]
    match status:
        case 304:
            for _ in range(5):  # an event of another call may change the list in between
                answer = caller.call(key, headers={"If-None-Match": caller.call(key).headers["ETag"]})
                if answer.status_code == 304:
                    break
            return answer
        case 400 if operation.name.startswith("graphql"):
            wrong = {"params": {"query": ""}} if key[0] == "GET" else {"json": {"query": ""}}
            return caller.call(key, **wrong)
        case 400:
            return caller.call(key, content=b"{", headers={"Content-Encoding": "gzip"})
        case 401:
            return caller.call(key, by="")
        case 403:
            return caller.call(key, by="none")
        case 404:
            return caller.call(key, id="nowhere")
        case 409:
            return caller.call(key, params={"based_on": 1_000_000})
        case 413:
            return caller.call(key, content=LARGE, headers={"Content-Encoding": "gzip"})
        case 415:
            return caller.call(key, content=b"{}", headers={"Content-Type": "text/plain"})
        case 422:
            return caller.call(key, **WRONG[operation.name])
        case 429:
            one = {"json": {"requests": [{}, {}]}} if operation.name == "recommendBatch" else {}
            return next(last for _ in range(50) if (last := caller.call(key, by="slow", **one)).status_code == 429)
        case 500:
            monkeypatch.setattr(*FAULTS[operation.name], raising(RuntimeError("planted")))
            return caller.call(key)
        case 503 if operation.name == "readyz":
            monkeypatch.setattr(Catalogue, "__len__", lambda self: 0)
            monkeypatch.setattr(
                Follower, "ready", property(lambda self: False, lambda self, ready: None), raising=False
            )
            return caller.call(key)
        case 503 if operation.name == "sendEvents":
            monkeypatch.setattr(caller.server.log, "append_whole", raising(LogUnavailable("away")))
            return caller.call(key)
        case 503:
            caller.store.away = True
            more = {"params": {"scope": "brand", "name": "Acme"}} if operation.name == "popular" else {}
            return next(last for _ in range(50) if (last := caller.call(key, **more)).status_code == 503)
        case _:
            return caller.call(key)


def test_every_status_is_sent_with_the_body_that_is_described(caller, monkeypatch):
    document = caller.server.client.get("/openapi.json").json()
    described = [
        (key, int(status), response)
        for key in OPERATIONS
        for status, response in document["paths"][key[1]][key[0].lower()]["responses"].items()
    ]
    assert len(described) > 100
    for key, status, response in sorted(described, key=lambda one: one[1]):  # 503 comes last: Redis stays away
        with monkeypatch.context() as patch:
            answer = provoked(caller, patch, key, status)
        assert answer.status_code == status, f"{key} {status}: {answer.status_code} {answer.text[:500]}"
        check(document, response, answer)


def check(document, response, answer):
    """Fail unless an answer has the headers and the body of a response."""
    needed = [name for name, of in response.get("headers", {}).items() if of["required"]]
    assert [name for name in needed if name not in answer.headers] == []
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    if schema is not None:
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
