"""The hot path answers malformed, oversized, slow and pipelined requests as the framework's other routes do."""

import http.client
import socket
import time

import orjson
import pytest
from helpers.raw_http import BATCH, BODIES, BODY, HOT, head, send, status
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.auth.api_keys import make_key, write_keys


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


@pytest.mark.parametrize(
    "more",
    [
        [b"Content-Length: nonsense"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"", b"zz\r\n"],
        [b"Content-Length: 99999999999"],
        [b"Content-Length: 0"],
        [b"no colon here"],
    ],
)
def test_broken_heads_get_the_same_status_as_elsewhere(server, more):
    hot, batch, cold = (status(send(server, head(path, *more))) for path in BODIES)
    if more == [b"Content-Length: 0"]:
        assert (hot, batch, cold) == (b"200", b"422", b"422")  # a request without wishes, but no batch
    else:
        assert hot == batch == cold
        assert hot in (b"400", b"413", b"closed")


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"HEAD"])
def test_other_methods_are_refused_alike(server, method):
    answers = [send(server, head(path, method=method)) for path in BODIES]
    assert [status(answer) for answer in answers] == [b"405"] * 3


def test_pipelined_requests_are_answered_in_order(server):
    one = head(HOT, b"Content-Length: %d" % len(BODY)) + BODY
    other = head("/healthz", method=b"GET")
    got = send(server, one + other + one)
    assert got.count(b"HTTP/1.1 200") == 3
    assert got.index(b"request_id") < got.index(b"alive") < got.rindex(b"request_id")


@pytest.mark.parametrize("path", [HOT, BATCH])
def test_a_body_may_come_in_drops_and_in_chunks(server, path):
    body = BODIES[path]
    drops = [body[i : i + 5] for i in range(0, len(body), 5)]
    assert status(send(server, head(path, b"Content-Length: %d" % len(body)), *drops, pause=0.01)) == b"200"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(drop), drop) for drop in drops) + b"0\r\n\r\n"
    assert status(send(server, head(path, b"Transfer-Encoding: chunked"), chunks)) == b"200"


@pytest.mark.parametrize("path", [HOT, BATCH])
def test_an_oversized_body_is_refused_whether_it_says_so_or_not(server, path):
    said = send(server, head(path, b"Content-Length: %d" % (1 << 21)))
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    came = send(server, head(path, b"Transfer-Encoding: chunked"), *[chunk] * 17, b"0\r\n\r\n")
    assert status(said) == b"413"
    assert status(came) in (b"413", b"closed")  # closing with unread bytes may take the answer away


def test_a_client_that_goes_away_in_the_middle_costs_nothing(server):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
            connection.sendall(head(HOT, b"Content-Length: 1000") + b'{"user"')
    assert server.client.post(HOT, json={"count": 1}).status_code == 200


def test_connection_close_and_expect_are_honoured(server):
    closed = send(server, head(HOT, b"Connection: close", b"Content-Length: %d" % len(BODY)) + BODY)
    assert b"connection: close" in closed.lower()
    waited = send(server, head(HOT, b"Expect: 100-continue", b"Content-Length: %d" % len(BODY)), BODY, pause=0.1)
    assert waited.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in waited


def test_a_client_that_sends_on_and_on_gets_all_answers_in_order(server):
    count = 200
    bodies = [b'{"user": "ann", "count": %d}' % (1 + n % 3) for n in range(count)]
    got = send(server, b"".join(head(HOT, b"Content-Length: %d" % len(body)) + body for body in bodies), timeout=20)
    answers = [orjson.loads(part.partition(b"\r\n\r\n")[2]) for part in got.split(b"HTTP/1.1 200")[1:]]
    assert [len(answer["items"]) for answer in answers] == [1 + n % 3 for n in range(count)]


def read_answer(connection, came):
    """Return (status, body) of the next answer, and what came behind it."""
    while b"\r\n\r\n" not in came:
        chunk = connection.recv(65536)
        assert chunk, "the server closed"
        came += chunk
    lines, _, rest = came.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        rest += connection.recv(65536)
    return (lines.split(b" ")[1], rest[:length]), rest[length:]


def asked(count, path=HOT):
    body = b'{"user": "ann", "count": %d}' % count
    if path == BATCH:
        body = b'{"requests":[%b]}' % body
    return head(path, b"Content-Length: %d" % len(body)) + body, (b"200", count)


def refused(body, path=HOT):
    return head(path, b"Content-Length: %d" % len(body)) + body, (b"422", None)


BROKEN = (b'{"user": "ann", "count": x}', b'{"user": "\\r\\n", "count": 0 }', b"\r\n\r\nPOST /v1/recommend!")
REQUESTS = st.one_of(
    st.builds(asked, st.integers(1, 3), st.sampled_from([HOT, BATCH])),
    st.builds(refused, st.sampled_from(BROKEN), st.sampled_from([HOT, BATCH])),
    st.just((head("/healthz", method=b"GET"), (b"200", None))),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(REQUESTS, st.booleans(), st.integers(0, 200)), min_size=2, max_size=12))
def test_requests_with_the_same_head_are_answered_each_for_itself(server, said):
    """Whole, cut in two or one behind the other: heads that were read before change nothing."""
    wanted, waiting, came = [], b"", b""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for (request, answer), wait, cut in said:
            waiting, wanted = waiting + request, [*wanted, answer]
            if not wait:
                continue
            for part in (waiting[:cut], waiting[cut:]):
                if part:
                    connection.sendall(part)
                    time.sleep(0.002)
            for status_wanted, count in wanted:
                (found, body), came = read_answer(connection, came)
                assert found == status_wanted
                if count is not None:
                    answer = orjson.loads(body)
                    assert len(answer.get("answers", [answer])[0]["items"]) == count
            waiting, wanted = b"", []


def test_a_remembered_head_is_no_key(tmp_path):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path, recommender, require_key=True) as server:
        secret, key = make_key("shop", ("recommend",))
        write_keys(server.keys, [key])
        server.guard.follow()
        request = head(HOT, b"X-API-Key: " + secret.encode(), b"Content-Length: %d" % len(BODY)) + BODY
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
            came, found = b"", []
            for turn in range(3):
                connection.sendall(request)
                (status_found, _), came = read_answer(connection, came)
                found.append(status_found)
                if turn == 1:
                    write_keys(server.keys, [])
                    server.guard.follow()
        assert found == [b"200", b"200", b"401"]


def test_the_hot_path_and_the_route_give_the_same_answer(server):
    plain = send(server, head(HOT, b"Content-Length: %d" % len(BODY)) + BODY)
    by_route = send(server, head(HOT, b"Transfer-Encoding: chunked"), b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
    (head_1, one), (head_2, other) = ((got.partition(b"\r\n\r\n")[::2]) for got in (plain, by_route))
    names = [{line.split(b":")[0].lower() for line in lines.split(b"\r\n")[1:]} for lines in (head_1, head_2)]
    assert names[0] == names[1]
    first, second = orjson.loads(one), orjson.loads(other)
    assert list(first) == list(second)
    shown = [[(item["item"], item["reason"]) for item in answer["items"]] for answer in (first, second)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("path", list(BODIES))
def test_a_connection_is_kept_while_it_is_used_and_closed_when_it_is_not(server, path, monkeypatch):
    monkeypatch.setattr(server.wired.http.config, "timeout_keep_alive", 1)
    body = BODIES[path]
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=5)
    connection.connect()
    kept = connection.sock
    for pause in (0, 0.6, 0.6, 1.3):
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        time.sleep(pause)  # a slow body is no idle connection
        connection.send(body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert connection.sock is kept
        time.sleep(0.6 if pause < 1 else 0)
    began = time.monotonic()
    assert kept.recv(1) == b""
    assert 0.5 < time.monotonic() - began < 3
    connection.close()
