"""POST /v1/events with a real broker behind it: whole calls, refusals that name the event, a broker that hangs."""

import asyncio
import signal
import threading
import time

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from flows.log.open_log import open_log
from flows.log.read_to import read_to

pytestmark = pytest.mark.kafka
LOG_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    from headrace.torture.local_kafka import LocalKafka

    kafka = LocalKafka(tmp_path_factory.mktemp("kafka"))
    with kafka:
        log = open_log(f"kafka:{kafka.bootstrap}")
        log.create_topics()
        log.close()
        yield kafka


@pytest.fixture(scope="module")
def server(broker, tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    bound = {"delivery.timeout.ms": str(1000 * LOG_TIMEOUT_S)}
    log = open_log(f"kafka:{broker.bootstrap}", config=bound)
    with running(tmp_path_factory.mktemp("server"), recommender, log=log) as found:
        yield found


def view(**more):
    return {"type": "view", "user": "u", "item": "i", **more}


def messages_since(log, start):
    time.sleep(0.5)  # the marks of a transaction come after its confirmation
    return sum(len(batch) for batch in read_to(log, start, log.end(), 10))


def test_a_call_is_taken_whole_or_refused_naming_the_event_and_the_next_is_taken(server, broker):
    reading = open_log(f"kafka:{broker.bootstrap}")
    start = reading.end()
    ahead = view(ts_ms=time.time_ns() // 1_000_000 + 2 * 3_600_000)
    large = view(context={"k": "x" * 1_040_000})
    purchase = {"type": "purchase", "user": "u", "item": "tea"}
    for events, status, field in [([purchase, ahead], 422, "[1].ts_ms"), ([large], 413, "[0]"),
                                  ([purchase, view(), large], 413, None)]:  # fmt: skip
        answer = server.client.post("/v1/events", json=events)
        assert answer.status_code == status
        assert field is None or answer.json()["error"]["field"] == field
    assert messages_since(reading, start) == 0
    for events in (purchase, [view(), purchase, view()]):
        assert server.client.post("/v1/events", json=events, timeout=30).status_code == 202
    assert messages_since(reading, start) == 4
    reading.close()


def test_a_hung_broker_costs_a_call_a_bound_time_and_nobody_else_any(server, broker):
    assert server.client.post("/v1/events", json=[view(), view()], timeout=30).status_code == 202
    broker.send(signal.SIGSTOP)
    others = []

    def ask():
        with httpx.Client(base_url=server.url) as client:
            for _ in range(20):
                started = time.monotonic()
                assert client.post("/v1/recommend", json={"user": "ann"}).status_code == 200
                others.append(time.monotonic() - started)
                time.sleep(0.05)

    async def send():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            bodies = [view() if n % 2 else [view(), view()] for n in range(40)]
            return await asyncio.gather(*(client.post("/v1/events", json=body) for body in bodies))

    beside = threading.Thread(target=ask)
    try:
        beside.start()
        started = time.monotonic()
        answers = asyncio.run(send())
        took = time.monotonic() - started
        beside.join()
    finally:
        broker.send(signal.SIGCONT)
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    assert took < 15 * LOG_TIMEOUT_S
    assert len(others) == 20
    assert sorted(others)[10] < LOG_TIMEOUT_S / 2
    deadline = time.monotonic() + 60
    for body in (view(), [view(), view()]):
        while (answer := server.client.post("/v1/events", json=body, timeout=30)).status_code != 202:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.5)
