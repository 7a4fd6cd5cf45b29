"""`POST /v1/events` while the schema registry is away, hangs, and is back."""

import threading
import time

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.registry_server import Registry
from helpers.running_server import running
from helpers.serving_rows import shop_events

from flows.log.confluent_registry import ConfluentRegistry
from state.ports import free_port

EVENT = {"type": "view", "user": "u", "item": "i"}


@pytest.fixture(scope="module")
def recommender():
    found, _ = recommender_of(shop_events())
    return found


def test_a_registry_that_is_away_gives_503_and_nothing_is_taken(recommender, tmp_path):
    away = ConfluentRegistry(f"http://key:secret@127.0.0.1:{free_port()}", timeout_s=1)
    with running(tmp_path, recommender, registry=away) as server:
        before = server.log.end()
        refused = server.client.post("/v1/events", json=EVENT)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "registry" in refused.text
        assert "secret" not in refused.text
        assert server.client.post("/v1/events", json={"type": "product_gone", "item": "i"}).status_code == 503
        assert server.client.get("/healthz").status_code == 200
        server.client.post("/v1/events", json=EVENT)
        after = server.log.end()
    assert after == before


def test_a_registry_that_hangs_holds_up_nobody_and_one_that_is_back_is_used(recommender, tmp_path):
    registry = Registry()
    registry.hang_s = 6
    with running(tmp_path, recommender, registry=ConfluentRegistry(registry.url, timeout_s=5)) as server:
        started = time.monotonic()
        posts = [
            threading.Thread(target=httpx.post, args=(f"{server.url}/v1/events",), kwargs={"json": EVENT})
            for _ in range(8)
        ]
        for post in posts:
            post.start()
        assert server.client.post("/v1/recommend", json={"user": "u"}).status_code == 200
        refused = server.client.post("/v1/events", json=EVENT)
        for post in posts:
            post.join()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert time.monotonic() - started < 4
        registry.hang_s = 0
        deadline = time.monotonic() + 60
        while (answer := server.client.post("/v1/events", json=EVENT)).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer.status_code == 202
        assert server.log.end()["product-views:0"] == 1
    registry.close()
