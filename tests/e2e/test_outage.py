"""Answers while Redis and the anchor come and go, over processes that really run."""

import json
import os
import subprocess
import sys
import time

import httpx
import pytest

from headrace.bench.up import everything_up
from state.ports import free_port

pytestmark = [pytest.mark.redis, pytest.mark.e2e]
HEADRACE = [sys.executable, "-m", "headrace"]


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.timeout(500)
def test_every_request_is_answered_while_redis_is_killed_twice_hangs_and_an_anchor_switches():
    command = [*HEADRACE, "bench", "outage", "--seconds", "15", "--away", "2", "--rps", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["unanswered_because"] == {}
    assert figures["answered"] == 750
    assert figures["anchor_switched"]
    assert figures["answers_by_level"]["last_known_popular"] > 0
    assert figures["answers_by_level"]["personalised"] > 0
    assert figures["recovered_s"] < 60
    assert [one["fault"] for one in figures["hangs"]] == ["stop", "swallow", "delay", "cut"]
    for one in figures["hangs"]:
        assert one["unanswered_because"] == {}, one["fault"]
        assert one["answered"] == 450
        assert one["recovered_s"] < 5


def test_a_server_starts_and_answers_from_disk_without_redis_and_rules_follow_within_a_second(tmp_path):
    with (
        everything_up(tmp_path, f"sqlite:{tmp_path}/log.sqlite") as running,
        httpx.Client(base_url=running.where["http"]) as client,
    ):
        events = [{"type": "view", "user": f"u{n % 3}", "item": f"i{n}"} for n in range(9)]
        events += [{"type": "product", "item": f"i{n}", "title": f"Item {n}", "stock": 5} for n in range(9)]
        assert client.post("/v1/events", json=events).status_code == 202
        until(lambda: len(client.post("/v1/recommend", json={"count": 20}).json()["items"]) == 9)

        def shown():
            return [one["item"] for one in client.post("/v1/recommend", json={"count": 20}).json()["items"]]

        began = time.monotonic()
        client.post("/v1/events", json={"type": "product", "item": "i1", "stock": 0})
        until(lambda: "i1" not in shown(), 10)
        book = tmp_path / "book.yaml"
        book.write_text("rules:\n- {id: first, action: pin, items: [i7]}\n")
        put = subprocess.run(
            [*HEADRACE, "rules", "put", str(book), "--author", "test", "--json"], env=running.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert put.returncode == 0, put.stderr
        until(lambda: shown()[0] == "i7", 10)
        assert time.monotonic() - began < 20
        tried = subprocess.run(
            [*HEADRACE, "rules", "test", str(book), "--user", "u1", "--json"], env=running.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert json.loads(tried.stdout)["after"]["items"][0]["item"] == "i7", tried.stderr
        saved = tmp_path / "last-good" / "lists.json"
        until(lambda: saved.exists() and json.loads(saved.read_bytes())["rules_version"] == 1)
    port = free_port()
    environment = os.environ | {
        "HEADRACE_REUSE_PORT": "true",
        "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_LOG_URL": f"sqlite:{tmp_path}/log.sqlite",
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{free_port()}", "HEADRACE_HTTP_PORT": str(port),
        "HEADRACE_GRPC_PORT": "0",
    }  # fmt: skip

    def serve() -> subprocess.Popen[str]:
        return subprocess.Popen([*HEADRACE, "serve"], env=environment, stderr=subprocess.PIPE, text=True)

    started = [serve()]
    try:
        server = started[0]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

            def ready():
                assert server.poll() is None, server.stderr.read()
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready)
            answer = client.post("/v1/recommend", json={"user": "u1", "count": 20}).json()
            assert answer["fallback"] == "last_known_popular"
            assert answer["items"][0]["item"] == "i7"  # the rule holds without Redis too
            assert "i1" not in [one["item"] for one in answer["items"]]
            started.append(serve())  # only now: the port is shared, so the first one might have been taken for ready
            server.terminate()
            assert server.wait(30) == 0
        server = started[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:  # the other one has the port to itself
            until(ready)
            assert client.post("/v1/recommend", json={}).status_code == 200
    finally:
        for one in started:
            one.kill()
            one.communicate()
