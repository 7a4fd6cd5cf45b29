"""Where one HTTP request ends and the next begins: offers to upgrade, and heads with two readings (smuggling)."""

import hashlib
import inspect
import re
import socket
import time

import orjson
import pytest
from helpers.raw_http import BODIES, COLD, HOT, head, send
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.auth.api_keys import make_key, write_keys

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
HOT_BODY = b'{"user": "ann", "count": 2}'
ALIVE = head("/healthz", method=b"GET")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


def statuses(got):
    return re.findall(rb"HTTP/1\.1 (\d+)", got)


def chunked(body):
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def test_the_class_that_the_hot_path_extends_is_the_one_it_was_written_for():
    """Where this fails: read what has changed in uvicorn, then what serving/http/fast_protocol.py makes of it."""
    source = inspect.getsource(HttpToolsProtocol) + inspect.getsource(RequestResponseCycle.__init__)
    found = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert found == "0bedc9cfc15d33b0", (
        f"uvicorn's HttpToolsProtocol has changed ({found}). serving/http/fast_protocol.py extends it: it sets "
        "`cycle`, reads `flow`, `parser`, `url`, `headers`, `expect_100_continue`, and stands for its `data_received`. "
        "Compare the two versions of uvicorn/protocols/http/httptools_impl.py, mend the hot path where it must be, run "
        "tests/serving/test_conformance.py and this file; then put the new hash here, the new bounds into "
        "pyproject.toml"
    )


@pytest.mark.parametrize("path", list(BODIES))
@pytest.mark.parametrize("way", ["length", "chunks", "drops"])
@pytest.mark.parametrize("offer", [H2C, (b"Connection: upgrade", b"Upgrade: websocket")], ids=["h2c", "websocket"])
def test_an_offer_to_upgrade_is_ignored_and_the_body_is_read(server, path, way, offer):
    body = BODIES[path]
    if way == "chunks":
        parts = [head(path, *offer, b"Transfer-Encoding: chunked") + chunked(body)]
    else:
        whole = head(path, *offer, b"Content-Length: %d" % len(body)) + body
        parts = [whole] if way == "length" else [whole[at : at + 40] for at in range(0, len(whole), 40)]
    got = send(server, *parts, pause=0.01)
    assert statuses(got) == [b"200"]
    answer = orjson.loads(got.partition(b"\r\n\r\n")[2])
    lists = {HOT: lambda: [answer], COLD: lambda: [answer["before"]]}.get(path, lambda: answer["answers"])()
    assert {len(one["items"]) for one in lists} == {2}


def test_what_curl_sends_is_answered_for_the_user_it_names(server):
    got = send(server, head(HOT, *H2C, b"Content-Length: %d" % len(HOT_BODY)), HOT_BODY, pause=0.05)
    plain = send(server, head(HOT, b"Content-Length: %d" % len(HOT_BODY)) + HOT_BODY)
    first, second = (orjson.loads(one.partition(b"\r\n\r\n")[2]) for one in (got, plain))
    assert [one["item"] for one in first["items"]] == [one["item"] for one in second["items"]]
    assert first["fallback"] == second["fallback"] == "personalised"


@pytest.mark.parametrize("path", list(BODIES))
def test_a_connection_goes_on_behind_an_offer_to_upgrade(server, path):
    body = BODIES[path]
    offered = head(path, *H2C, b"Content-Length: %d" % len(body)) + body
    plain = head(path, b"Content-Length: %d" % len(body)) + body
    assert statuses(send(server, offered + plain + offered + ALIVE)) == [b"200"] * 4  # pipelined
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        for one in (offered, plain, offered, ALIVE):  # kept alive
            connection.sendall(one)
            got = b""
            while b"}" not in got or not got.rstrip().endswith(b"}"):
                got += connection.recv(65_536)
            assert statuses(got) == [b"200"]


def test_an_offer_without_a_body_is_a_plain_request(server):
    assert statuses(send(server, head("/healthz", *H2C, method=b"GET") + ALIVE)) == [b"200", b"200"]


def test_connect_is_refused_and_the_connection_ends(server):
    got = send(server, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n" + ALIVE)
    assert statuses(got) == [b"400"]


HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
"""A request within a request: only who reads the head otherwise than the server sees it."""
TWO_READINGS = {
    "both lengths": [b"Content-Length: 4", b"Transfer-Encoding: chunked"],
    "both lengths, the other way": [b"Transfer-Encoding: chunked", b"Content-Length: 4"],
    "two lengths": [b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)],
    "the same length twice": [b"Content-Length: 0", b"Content-Length: 0"],
    "a list of lengths": [b"Content-Length: 0, %d" % len(HIDDEN)],
    "a signed length": [b"Content-Length: +0"],
    "a length in hex": [b"Content-Length: 0x0"],
    "a space before the colon": [b"Content-Length : %d" % len(HIDDEN)],
    "chunked not last": [b"Transfer-Encoding: chunked, gzip"],
    "chunked misspelt": [b"Transfer-Encoding: xchunked"],
    "a folded line": [b"Content-Length: 0", b"X: a\r\n b\r\n c"],
    "a folded length": [b"Content-Length:\r\n 0"],
    "a folded coding": [b"Transfer-Encoding:\r\n chunked"],
    "a bare LF": [b"Content-Length: 0\nContent-Length: %d" % len(HIDDEN)],
    "a bare CR": [b"X: a\rContent-Length: %d" % len(HIDDEN)],
    "a NUL": [b"X: a\0b"],
    "a line without a colon": [b"Content-Length"],
    "an empty name": [b": a"],
}


@pytest.mark.parametrize("path", list(BODIES))
@pytest.mark.parametrize("offer", [(), H2C], ids=["plain", "h2c"])
@pytest.mark.parametrize("name", TWO_READINGS)
def test_a_head_with_two_readings_is_refused_or_has_one(server, name, offer, path):
    """Refused and closed; or read in one way, in which what follows is a request of its own or a body, never both."""
    got = send(server, head(path, *offer, *TWO_READINGS[name]) + HIDDEN)
    found = statuses(got)
    if found[:1] == [b"400"]:
        assert len(found) == 1
        assert b"connection: close" in got.lower()
    else:
        assert len(found) <= 2
        assert name in ("a folded line", "a folded length")
        assert found[1:] == [b"200"]  # a length of 0: what follows is a request of its own


CHUNKS = {
    "a length that is none": b"zz\r\n",
    "a negative length": b"-1\r\n",
    "an enormous length": b"ffffffffffffffffff\r\n",
    "a bare LF behind the length": b"1b\n" + HOT_BODY + b"\r\n0\r\n\r\n",
    "more than the length": b"1\r\n" + HOT_BODY + b"\r\n0\r\n\r\n",
    "an extension with a bare LF": b"1b;a\n" + HOT_BODY + b"\r\n0\r\n\r\n",
    "a space before the length": b" 1b\r\n" + HOT_BODY + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("offer", [(), H2C], ids=["plain", "h2c"])
def test_a_chunk_that_is_none_ends_the_connection(server, name, offer):
    got = send(server, head(HOT, *offer, b"Transfer-Encoding: chunked") + CHUNKS[name] + ALIVE)
    assert statuses(got) in ([b"400"], [])  # the answer of the framework may be under way
    assert b"alive" not in got


def test_chunks_with_extensions_and_trailers_have_one_reading(server):
    body = b'1b;name=value;other="a"\r\n' + HOT_BODY + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
    for offer in ((), H2C):
        got = send(server, head(HOT, *offer, b"Transfer-Encoding: chunked") + body + ALIVE)
        assert statuses(got) == [b"200", b"200"]
        assert got.index(b"request_id") < got.index(b"alive")


def test_a_key_is_asked_for_each_request_of_a_connection(tmp_path):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path, recommender, require_key=True) as server:
        secret, key = make_key("shop", ("recommend",))
        write_keys(server.keys, [key])
        server.guard.follow()
        plain = head(HOT, b"Content-Length: %d" % len(HOT_BODY)) + HOT_BODY
        named = head(HOT, b"X-API-Key: " + secret.encode(), b"Content-Length: %d" % len(HOT_BODY)) + HOT_BODY
        offered = head(HOT, *H2C, b"X-API-Key: " + secret.encode(), b"Content-Length: %d" % len(HOT_BODY)) + HOT_BODY
        got = send(server, plain + named + plain + offered + named + plain)
    assert statuses(got) == [b"401", b"200", b"401", b"200", b"200", b"401"]


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/recommend/batch"])
def test_a_body_longer_than_uvicorn_reads_at_once_is_answered(server, path):
    """uvicorn pauses above 64 KiB until somebody takes the body."""
    one = {"user": "ann", "count": 2, "exclude": [f"{n:0>250}" for n in range(900)]}
    body = orjson.dumps(one if path == "/v1/recommend" else {"requests": [one, one]})
    assert len(body) > 200_000
    got = send(server, head(path, b"Content-Length: %d" % len(body)) + body)
    assert statuses(got) == [b"200"]


@pytest.mark.parametrize("begun", [b"", b"GET /heal", head(HOT, b"Content-Length: 27") + b'{"user"',
                                   head(COLD, b"Content-Length: 99") + b"{", ALIVE + b"POST "])  # fmt: skip
def test_a_request_that_does_not_become_whole_ends_its_connection(server, monkeypatch, begun):
    monkeypatch.setattr("serving.http.fast_protocol.READ_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(begun)
        while got := client.recv(65536):
            assert begun.startswith(ALIVE)
            assert b"200 OK" in got


def test_who_sends_whole_requests_is_not_hurried(server, monkeypatch):
    monkeypatch.setattr("serving.http.fast_protocol.READ_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        for _ in range(4):
            whole = head(HOT, b"Content-Length: %d" % len(HOT_BODY)) + HOT_BODY
            client.sendall(whole[:40])
            time.sleep(0.15)
            client.sendall(whole[40:])
            assert b"200 OK" in client.recv(65536)
            time.sleep(0.4)  # between requests a connection may wait for longer


def megabytes_taken(client):
    """Return how many megabytes go into a connection before the server ends it, 400 at most."""
    for n in range(400):
        try:
            client.sendall(b"x" * 1_000_000)
        except OSError:
            return n
    return 400


@pytest.mark.parametrize("begun", [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: ", b"GET /",
                                   head(COLD, b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nA: "])  # fmt: skip
def test_a_head_and_trailers_have_an_end(server, begun):
    """Without a bound a line of 300 MB took as much memory, and everybody's time."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(begun)
        assert megabytes_taken(client) < 50


def test_who_sends_a_long_head_slowly_is_told(server):
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: ")
        for _ in range(66):
            client.sendall(b"x" * 1000)
            time.sleep(0.002)
        assert b"431" in client.recv(65536)
