"""Law 7: a server reads. Its process runs on a Redis whose user may write nothing, and answers on every route.

All that it ever writes there are books of rules that somebody puts over its API; that is refused to this user, by name,
and nothing else is.
"""

import os
import subprocess
import sys
import time

import grpc
import httpx
import pytest
from helpers.books import put_book
from helpers.serving_rows import SETTINGS, fold_into, product, shop_events

from headrace.settings import Settings
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.rules.book_store import parse_book
from state.embedded_redis import EmbeddedRedis
from state.generations import new_generation, write_generation
from state.ports import free_port
from state.rows import keys
from state.store.redis_store import RedisStore

pytestmark = [pytest.mark.redis, pytest.mark.e2e, pytest.mark.law(n=7)]
READER = ("-@all", "+@read", "+@connection", "-@dangerous", "+info", "+config|get")
"""Reading of keys, what a connection says of itself (with the change feed), and how Redis is set up."""
BOOK = "rules:\n- {id: no-old, action: exclude, where: price > 1000}\n"
REQUESTS = {
    "get /v1/items/{item}/similar": ("/v1/items/tea/similar", None, 200),
    "get /v1/popular": ("/v1/popular?count=3", None, 200),
    "post /v1/recommend": ("/v1/recommend", {"user": "ann", "count": 5, "explain": True}, 200),
    "post /v1/recommend/batch": ("/v1/recommend/batch", {"requests": [{"user": "bob"}, {"session": "new"}]}, 200),
    "post /v1/events": ("/v1/events", {"type": "view", "user": "ann", "item": "cup"}, 202),
    "get /v1/rules": ("/v1/rules", None, 200),
    "get /v1/rules/history": ("/v1/rules/history", None, 200),
    "post /v1/rules/preview": ("/v1/rules/preview", {"book": {"rules": []}, "request": {"user": "ann"}}, 200),
    "post /v1/rules/read": ("/v1/rules/read", BOOK, 200),
    "post /v1/rules/lint": ("/v1/rules/lint", {"rules": []}, 200),
    "get /v1/users": ("/v1/users", None, 200),
    "get /v1/users/{user}": ("/v1/users/ann", None, 200),
    "get /v1/items/{item}": ("/v1/items/tea", None, 200),
    "get /v1/live": ("/v1/live", None, 200),
    "get /healthz": ("/healthz", None, 200),
    "get /readyz": ("/readyz", None, 200),
    "get /metrics": ("/metrics", None, 200),
    "get /": ("/", None, 200),
    "get /explorer/{name}": ("/explorer/explorer.js", None, 200),
    "get /graphql": ("/graphql?query={popular{items{item}}}", None, 200),
    "post /graphql": ("/graphql", {"query": "{recommend(user: \"ann\") {items {item}}}"}, 200),
}  # fmt: skip
"""A request for every route but `put /v1/rules`: path, body and the status that it is answered with."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis with a shop's rows, a book of rules, and a user `reader` who may only read; the folder is the log's."""
    port, folder = free_port(), tmp_path_factory.mktemp("log")
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), {"port": str(port)}) as server:
        store = RedisStore(server.url)
        settings = Settings(
            max_cached_users=200, max_cached_items=200, dedupe_window=SETTINGS.dedupe_window, show_unknown_items=True
        )
        write_generation(store, new_generation("g1", settings, 0))
        store.write({keys.GENERATION: b"g1"})
        fold_into(store, shop_events(), [product("tea", "Green tea", category="drinks", price=3.5)])
        put_book(store, parse_book(BOOK), "ann", 0, folder=folder)
        admin = server.client()
        admin.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=READER)
        yield admin, f"redis://reader:secret@127.0.0.1:{port}/0", folder
        store.close()


@pytest.fixture(scope="module")
def server(redis, tmp_path_factory):
    """`headrace serve` on that Redis, as the reader; gives (client, gRPC port)."""
    folder, http_port, grpc_port = tmp_path_factory.mktemp("server"), free_port(), free_port()
    environment = os.environ | {
        "HEADRACE_DATA_DIR": str(folder), "HEADRACE_LOG_URL": f"sqlite:{redis[2]}/log.sqlite",
        "HEADRACE_REDIS_URL": redis[1], "HEADRACE_HTTP_PORT": str(http_port), "HEADRACE_GRPC_PORT": str(grpc_port),
        "HEADRACE_SHOW_UNKNOWN_ITEMS": "true",
    }  # fmt: skip
    with (folder / "serve.log").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "headrace", "serve"], env=environment, stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as client:
            deadline = time.monotonic() + 240  # it may have kernels to compile
            while not is_ready(client):
                assert process.poll() is None, (folder / "serve.log").read_text()[-3000:]
                assert time.monotonic() < deadline, "the server is not ready in time"
                time.sleep(0.05)
            yield client, grpc_port
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def is_ready(client):
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def rows_of(admin):
    found = sorted(admin.scan_iter("*"))
    return {key: admin.dump(key) for key in found}


def refused(admin):
    """Return the commands that Redis has refused to the reader."""
    return [entry["object"] for entry in admin.acl_log() if entry["username"] == "reader"]


def test_there_is_a_request_for_every_route(server):
    client, _ = server
    there = {f"{method} {path}" for path, methods in client.get("/openapi.json").json()["paths"].items()
             for method in methods}  # fmt: skip
    assert there - REQUESTS.keys() == {"put /v1/rules"}
    assert len(REQUESTS) >= 20


@pytest.mark.parametrize("route", REQUESTS)
def test_a_route_answers_and_asks_redis_for_nothing_that_it_refuses(redis, server, route):
    path, body, status = REQUESTS[route]
    before = rows_of(redis[0])
    method = route.split()[0]
    yaml = {"content": body, "headers": {"Content-Type": "application/yaml"}}
    content = {} if body is None else yaml if isinstance(body, str) else {"json": body}
    answer = server[0].request(method, path, **content)
    assert answer.status_code == status, answer.text
    assert "errors" not in answer.text[:20], answer.text
    if route == "post /v1/recommend":
        assert (answer.json()["fallback"], answer.json()["items"][0]["item"]) == ("personalised", "cup")
    assert refused(redis[0]) == []
    assert rows_of(redis[0]) == before


def test_every_method_of_grpc_answers(redis, server):
    before = rows_of(redis[0])
    one = headrace_pb2.RecommendRequest(user="ann", count=3)
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        answers = {
            "Recommend": [stub.Recommend(one)],
            "RecommendBatch": stub.RecommendBatch(headrace_pb2.BatchRequest(requests=[one, one])).answers,
            "RecommendStream": list(stub.RecommendStream(iter([one, one]))),
            "SimilarItems": [stub.SimilarItems(headrace_pb2.SimilarItemsRequest(item="tea"))],
            "Popular": [stub.Popular(headrace_pb2.PopularRequest(count=3))],
        }
    assert list(answers) == [method.name for method in headrace_pb2.DESCRIPTOR.services_by_name["Headrace"].methods]
    assert all(answer.items for several in answers.values() for answer in several)
    assert refused(redis[0]) == []
    assert rows_of(redis[0]) == before


def test_what_a_server_follows_it_follows_without_writing(redis, server):
    admin, client = redis[0], server[0]
    store = RedisStore(redis[1].replace("reader:secret@", ""))
    put_book(store, parse_book(BOOK.replace("no-old", "another")), "ann", 1, folder=redis[2])
    store.close()
    deadline = time.monotonic() + 30
    while client.get("/v1/rules").json()["version"] != 2:
        assert time.monotonic() < deadline, "the book was not taken over"
        time.sleep(0.05)
    assert refused(admin) == []


def test_a_book_over_the_api_is_all_that_a_server_writes_and_redis_refuses_it_to_a_reader(redis, server):
    before = rows_of(redis[0])
    answer = server[0].put(
        "/v1/rules", params={"author": "ann"}, content=BOOK, headers={"Content-Type": "application/yaml"}
    )
    assert answer.status_code == 503, answer.text
    assert refused(redis[0])
    assert rows_of(redis[0]) == before
    assert server[0].post("/v1/recommend", json={"user": "ann"}).json()["fallback"] == "personalised"
