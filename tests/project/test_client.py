"""What a Python user imports: `headrace.Client`, on a server that really runs."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

import headrace


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


@pytest.fixture
def client(server):
    with headrace.Client(server.url) as found:
        yield found


def items(answer):
    return [one["item"] for one in answer["items"]]


def test_a_shop_sends_events_and_asks(server, client):
    before = sum(server.log.end().values())
    assert client.send({"type": "view", "user": "ann", "item": "tea", "event_id": "e1"}) == ["e1"]
    assert sum(server.log.end().values()) == before + 1
    answer = client.recommend(items=["tea"], count=2)
    assert len(answer["items"]) == 2
    batch = client.recommend_batch([{"items": ["tea"], "count": 2}])
    assert [items(one) for one in batch] == [items(answer)]
    assert "tea" not in items(client.similar("tea", count=3))
    assert client.popular(count=1)["items"]


def test_a_refused_call_names_the_field_and_is_not_repeated(client):
    with pytest.raises(headrace.ServerError) as refused:
        client.recommend(count=0)
    assert (refused.value.status, refused.value.field) == (422, "count")
    with pytest.raises(headrace.ServerError, match=r"^422: \[1\].item"):
        client.send({"type": "view", "user": "ann", "item": "tea"}, {"type": "view", "user": "ann"})


def test_good_events_are_taken_in_part_and_each_refused_one_is_named(server, client):
    before = sum(server.log.end().values())
    good, bad = {"type": "view", "user": "ann", "item": "tea", "event_id": "p1"}, {"type": "rating", "user": "ann"}
    answer = client.send(bad, good, {**bad, "item": "tea"}, partial=True)
    assert (answer["accepted"], answer["event_ids"], answer["n_errors"]) == (1, [None, "p1", None], 2)
    assert [(one["index"], one["field"]) for one in answer["errors"]] == [(0, "item"), (2, "stars")]
    assert sum(server.log.end().values()) == before + 1
    with pytest.raises(headrace.ServerError) as refused:
        client.send(bad, {**bad, "item": "tea"}, partial=True)
    assert [one["index"] for one in refused.value.errors] == [0, 1]
    with pytest.raises(headrace.ServerError) as refused:
        client.send(good, bad)
    assert [one["index"] for one in refused.value.errors] == [1]


def test_a_server_that_is_busy_is_asked_again_with_the_same_key():
    keys, left = [], [503, 429]

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Idempotency-Key"])
            self.send_response(left.pop() if left else 202)
            self.end_headers()
            self.wfile.write(b'{"event_ids": ["a"]}')

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        Thread(target=busy.serve_forever).start()
        with headrace.Client(f"http://127.0.0.1:{busy.server_port}") as client:
            assert client.send({"type": "view"}) == ["a"]
        busy.shutdown()
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_server_that_is_not_there_is_an_error_of_the_transport():
    with headrace.Client("http://127.0.0.1:1", attempts=2) as client, pytest.raises(httpx.TransportError):
        client.popular()


@pytest.mark.process
def test_importing_the_product_imports_no_client_until_it_is_used():
    code = "import sys, headrace; print('httpx' in sys.modules); headrace.Client; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
