"""What a shop sends to POST /v1/events: all of a call is taken or none, and each refusal names its event."""

import asyncio
import io
import time

import fastavro
import orjson
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from flows.log.contract import LogUnavailable, NotConfirmed
from flows.log.sqlite_log import SqliteLog
from schemas.registry import FolderRegistry
from schemas.validate import Limits
from serving.http.events_api import Call, Events, NotTaken

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


def now():
    return time.time_ns() // 1_000_000


def view(**more):
    return {"type": "view", "user": "u", "item": "i", **more}


def records(log, since):
    found, registry = [], FolderRegistry()
    batch = log.read(since, 1000, 0.2)
    for i in range(len(batch) if batch else 0):
        value = batch.value(i)
        schema = registry.schema(int.from_bytes(value[1:5], "big"))
        found.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), dict(schema.parsed), None))
    return found


@pytest.mark.parametrize(
    ("event", "status", "field", "said"),
    [
        (view(ts_ms=now() + 2 * HOUR_MS), 422, "[1].ts_ms", "ahead of the clock"),
        (view(ts="1999-12-31T23:59:59Z"), 422, "[1].ts", "after the year 2000"),
        (view(ts_ms=1), 422, "[1].ts_ms", "after the year 2000"),
        (view(ts_ms=now(), ts="2026-01-01"), 422, "[1].ts", "beside ts_ms"),
        (view(quantity=1), 422, "[1].quantity", "is not a field of a view"),
        ({"type": "purchase", "user": "u", "lines": [{"item": "a", "qty": 3}]}, 422, "[1].lines[0].qty",
         "did you mean quantity?"),
        ({"type": "purchase", "user": "u", "lines": [{"item": "a"}], "quantity": 3}, 422, "[1].quantity",
         "beside lines"),
        ({"type": "purchase", "usr": "u", "item": "a"}, 422, "[1].usr", "did you mean user?"),
        ({"type": "product_gone", "item": "a", "title": "t"}, 422, "[1].title", "is not a field of a product_gone"),
        ({"type": "product", "item": "a", "title": "t" * 2049}, 422, "[1].title", "1 to 2048 bytes; got 2049 bytes"),
        (view(brand="b" * 257), 422, "[1].brand", "1 to 256 bytes; got 257 bytes"),
    ],
)  # fmt: skip
def test_a_call_with_an_event_that_cannot_be_is_refused_whole_and_the_event_named(server, event, status, field, said):
    before = server.log.end()
    good = {"type": "purchase", "user": "u", "item": "tea"}
    answer = server.client.post("/v1/events", json=[good, event])
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    assert said in answer.json()["error"]["message"]
    assert server.log.end() == before
    assert server.client.post("/v1/events", json=good).status_code == 202


@pytest.mark.parametrize("event", [
    view(ts_ms=now() + HOUR_MS - 60_000), view(ts="2000-01-01T00:00:00Z"),
    {"type": "product", "item": "a", "title": "t" * 2048}, view(user="u" * 256),
])  # fmt: skip
def test_an_event_at_the_bounds_is_taken(server, event):
    assert server.client.post("/v1/events", json=event).status_code == 202


def test_an_event_larger_than_a_flow_would_take_is_413_and_a_body_that_is_no_json_400(server, tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    events = Events(log, FolderRegistry(), Limits(max_message_bytes=500))
    body = orjson.dumps([view(), view(context={"k": "x" * 500})])
    with pytest.raises(NotTaken, match="at most 500") as refused:
        asyncio.run(events.take(Call(body, None, False, list)))
    assert (refused.value.status, refused.value.field, log.end()["product-views:0"]) == (413, "[1]", 0)
    log.close()
    for body in (b"[" * 100_000, b"{", b"\xff"):
        answer = server.client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "body")


def test_ids_come_of_the_idempotency_key_so_that_a_call_can_be_repeated(server):
    since = server.log.end()
    for _ in range(2):
        answer = server.client.post("/v1/events", json=[view(), view()], headers={"Idempotency-Key": "order-7"})
        assert answer.status_code == 202
    ids = [record["event_id"] for record in records(server.log, since)]
    assert ids[:2] == ids[2:] == answer.json()["event_ids"]
    assert len(set(ids)) == 2
    other = server.client.post("/v1/events", json=view(), headers={"Idempotency-Key": "order-8"}).json()["event_ids"]
    assert other[0] not in ids


def test_the_answer_lists_the_ids_in_the_events_order_and_null_for_products(server):
    events = [view(), {"type": "product", "item": "a", "title": "t"}, {"type": "product_gone", "item": "a"}]
    first, *others = server.client.post("/v1/events", json=[*events, view(event_id="mine")]).json()["event_ids"]
    assert first
    assert others == [None, None, "mine"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LogUnavailable("away"), "nothing was taken"),
        (NotConfirmed("late"), "send the events again with these event_ids"),
    ],
)
def test_a_call_the_log_did_not_take_is_503_with_the_ids_to_repeat_it_by(server, monkeypatch, error, said):
    def append(messages):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(server.log, "append_whole", append)
        answers = [server.client.post("/v1/events", json=[view(), view(event_id="mine")]) for _ in range(5)]
    first = answers[0]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert (first.headers["retry-after"], first.json()["event_ids"][1]) == ("1", "mine")
    assert said in first.json()["error"]["message"]
    assert "event_ids" not in answers[-1].json()  # refused before it was read
    deadline = time.monotonic() + 20  # while it is away only some calls try
    while (answer := server.client.post("/v1/events", json=view())).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer.status_code == 202
