"""A Redis that hangs: every route answers from memory or says that it cannot, and nothing waits in the loop."""

import asyncio
import contextlib
import signal
import time
from statistics import median
from typing import get_args

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import NOW, product, shop_events

from headrace.settings import Settings
from headrace.torture.faulty_proxy import FaultyProxy
from serving.auth.api_keys import Scope, make_key, write_keys
from serving.engine.guarded_store import GuardedStore
from serving.engine.recommender import Recommender
from serving.http.rules_api import preview, trial
from serving.request.budget import UNBOUNDED
from serving.request.requests import RecommendRequest
from state.embedded_redis import EmbeddedRedis
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

pytestmark = pytest.mark.redis
HANGS_S, AT_MOST_S = 5.0, 2.5  # half of it: the machine may be busy, and nobody waits until the hang is over
GRAPHQL = '{recommend(user: "ann") {fallback} }'
IN_FULL = {
    "recommend": ("POST", "/v1/recommend", {"user": "ann", "count": 2}),
    "batch": ("POST", "/v1/recommend/batch", {"requests": [{"user": "ann"}, {"session": "s"}, {"items": ["tea"]}]}),
    "popular": ("GET", "/v1/popular", None),
    "graphql": ("POST", "/graphql", {"query": GRAPHQL}),
    "live": ("GET", "/v1/live", None),
    "healthz": ("GET", "/healthz", None),
    "readyz": ("GET", "/readyz", None),
}
"""Routes that answer in any case."""
OR_NOT = {
    "similar": ("GET", "/v1/items/tea/similar", None),
    "category": ("GET", "/v1/popular?scope=category&name=drinks", None),
    "graphql similar": ("POST", "/graphql", {"query": '{similarItems(item: "tea") {fallback} }'}),
    "graphql popular": ("POST", "/graphql", {"query": '{popular(scope: "brand", name: "Acme") {fallback} }'}),
    "users": ("GET", "/v1/users", None),
    "user": ("GET", "/v1/users/ann", None),
    "item": ("GET", "/v1/items/tea", None),
    "rules": ("GET", "/v1/rules", None),
    "history": ("GET", "/v1/rules/history", None),
    "put": ("PUT", "/v1/rules?author=ann&empty=true", {"rules": []}),
    "preview": ("POST", "/v1/rules/preview", {"book": {"rules": []}, "request": {"user": "ann"}}),
}
"""Routes that answer or say that the store is away."""


@pytest.fixture
def shop(tmp_path):
    memory = recommender_of(shop_events(), [product("tea", "Green tea", brand="Acme", category="drinks")])[1]
    settings = Settings(data_dir=tmp_path, server_cached_items=1000, show_unknown_items=True)
    with EmbeddedRedis(tmp_path / "redis") as redis, FaultyProxy(redis.url) as proxy:
        store = RedisStore(proxy.url, 2.0)
        store.write(memory.rows)
        recommender = Recommender(GuardedStore(store, 0.1, store.line), settings, "g1")
        recommender.refresh(NOW)
        with running(tmp_path, recommender, settings=settings) as server:
            secret, key = make_key("boss", get_args(Scope))
            write_keys(server.keys, [key])
            server.guard.follow()
            server.client.headers["Authorization"] = f"Bearer {secret}"
            assert server.client.put("/v1/rules?author=ann&empty=true", json={"rules": []}).status_code == 201
            yield server, redis, proxy
        store.close()


async def ask_for_a_while(client, name, method, path, body, seconds):
    """Ask again and again; return (name, answer, seconds) of each time but the first."""
    found = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        answer = await client.request(method, path, json=body)
        found.append((name, answer, time.perf_counter() - began))
        await asyncio.sleep(0.2)
    return found[1:]


def begin(fault, redis, proxy):
    if fault == "stop":
        redis.process.send_signal(signal.SIGSTOP)
    else:
        proxy.play(fault)


def end(fault, redis, proxy):
    if fault == "stop":
        redis.process.send_signal(signal.SIGCONT)
    else:
        proxy.play(None)


def wait_until_personalised(server):
    deadline = time.monotonic() + 20
    while server.client.post("/v1/recommend", json={"user": "ann"}).json()["fallback"] != "personalised":
        assert time.monotonic() < deadline, "the answers stayed those from memory"
        time.sleep(0.05)


@pytest.mark.parametrize("fault", ["stop", "swallow", "delay", "cut"])
def test_every_route_answers_at_once_while_redis_hangs_and_in_full_when_it_is_back(shop, fault):
    server, redis, proxy = shop

    async def everybody():
        routes, headers = {**IN_FULL, **OR_NOT}, server.client.headers
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
            asking = [asyncio.create_task(ask_for_a_while(client, n, *r, 2 + HANGS_S)) for n, r in routes.items()]
            await asyncio.sleep(1.5)
            await asyncio.to_thread(begin, fault, redis, proxy)
            found = [one for task in asking for one in await task]
            await asyncio.to_thread(end, fault, redis, proxy)
            return found

    wait_until_personalised(server)
    found = asyncio.run(everybody())
    for name, answer, seconds in found:
        assert seconds < AT_MOST_S, f"{name} took {seconds:.2f} s"
        if name in IN_FULL or answer.status_code != 503:
            assert answer.status_code in (200, 201), f"{name}: {answer.status_code} {answer.text}"
        else:
            assert "out of reach" in answer.text
            assert answer.headers["retry-after"] == "1"
    assert median(seconds for _, _, seconds in found) < 0.5
    levels = {answer.json()["fallback"] for name, answer, _ in found if name == "recommend"}
    assert levels == {"personalised", "last_known_popular"}
    assert {answer.status_code for name, answer, _ in found if name == "similar"} == {200, 503}
    assert {answer.status_code for name, answer, _ in found if name == "preview"} == {200, 503}
    wait_until_personalised(server)
    assert server.client.get("/v1/rules/history").status_code == 200


def test_a_preview_that_redis_leaves_half_way_ends_soon_and_shows_no_answers_from_memory(shop):
    server, redis, _ = shop
    asked = RecommendRequest(user="ann")
    frozen = server.recommender.frozen(UNBOUNDED)
    assert preview(frozen, trial({}), asked, NOW)["before"].fallback == "personalised"
    redis.process.send_signal(signal.SIGSTOP)
    began = time.perf_counter()
    with pytest.raises(StoreUnavailable):
        preview(frozen, trial({}), asked, NOW)
    frozen.store.close()
    with contextlib.closing(server.recommender.frozen(UNBOUNDED).store) as store, pytest.raises(StoreUnavailable):
        store.read([b"x"])
    assert time.perf_counter() - began < 1.0
    redis.process.send_signal(signal.SIGCONT)


def test_nobody_gets_the_late_answer_to_another_question(shop):
    server, redis, _ = shop
    users = [f"u{n}" for n in range(20)] + ["ann"]

    def ask(user):
        return server.client.post("/v1/recommend", json={"user": user, "count": 2}).json()

    def everybodys():
        return {user: [one["item"] for one in ask(user)["items"]] for user in users}

    before = everybodys()
    for _ in range(3):
        redis.process.send_signal(signal.SIGSTOP)
        assert ask("ann")["fallback"] == "last_known_popular"
        redis.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while ask("ann")["fallback"] != "personalised":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert everybodys() == before
