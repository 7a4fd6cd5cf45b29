"""A request's failure is its own: the others of its batch are answered as they would be alone."""

import asyncio
import json

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from serving.engine.calls import RequestFailed
from serving.engine.metrics import FAILURES
from serving.engine.micro_batcher import MicroBatcher
from serving.engine.pipeline import Pipeline
from serving.request.requests import RecommendRequest
from state.store.contract import StoreUnavailable

CULPRIT, JSON = "culprit", {"Content-Type": "application/json"}
ERRORS = (
    RuntimeError("planted"),
    MemoryError(),
    RecursionError(),
    KeyError("x"),
    UnicodeEncodeError("u", "x", 0, 1, "y"),
)


@pytest.fixture(scope="module")
def recommender():
    return recommender_of(shop_events())[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory, recommender):
    with running(tmp_path_factory.mktemp("failures"), recommender) as found:
        yield found


def plant(monkeypatch, stage, error):
    """Have a stage of a batch's work raise where the culprit is in it."""
    plain = getattr(Pipeline, stage)

    def planted(batch, *args):
        if any(request.user == CULPRIT for request in batch.requests):
            raise error
        return plain(batch, *args)

    monkeypatch.setattr(Pipeline, stage, planted)


def asked_together(recommender, calls):
    async def together():
        gather = MicroBatcher(recommender)
        return await asyncio.gather(*(gather.recommend_all(call) for call in calls), return_exceptions=True)

    return asyncio.run(together())


def essence(answers):
    return [([one.item for one in answer.items], answer.fallback, answer.next_cursor) for answer in answers]


users = st.sampled_from(["ann", "bob", "cid", "nobody", CULPRIT])
requests = st.builds(
    RecommendRequest, user=users, count=st.integers(1, 5), strategy=st.sampled_from(["hybrid", "popular", "session"])
)
calls = st.lists(st.lists(requests, min_size=1, max_size=3), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(calls, st.sampled_from(ERRORS), st.sampled_from(["read", "answer", "_score", "_batch_lists"]))
def test_whoever_fails_fails_alone_wherever_it_is(recommender, calls, error, stage):
    alone = [None if any(one.user == CULPRIT for one in call) else recommender.recommend(call, 0) for call in calls]
    before = FAILURES._value.get()
    with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
        plant(patch, stage, error)
        found = asked_together(recommender, calls)
    for answers, expected in zip(found, alone, strict=True):
        if expected is None:
            assert isinstance(answers, RequestFailed)
        else:
            assert len(answers) == len(expected)
            assert not isinstance(answers, Exception)
    n_failed = alone.count(None)
    assert FAILURES._value.get() - before == n_failed
    said = {line["request_id"]: line["exc_info"] for line in logs if line["event"] == "a request was not answered"}
    assert said == {one.request_id: error for one in found if isinstance(one, RequestFailed)}


def test_the_others_of_a_batch_get_what_they_would_get_alone(recommender, monkeypatch):
    good = [RecommendRequest(user=user, count=n) for n in (2, 3, 4) for user in ("ann", "bob", "cid")]
    alone = asked_together(recommender, [[one] for one in good])
    plant(monkeypatch, "answer", RuntimeError("planted"))
    bad = RecommendRequest(user=CULPRIT)
    found = asked_together(recommender, [[bad], *([one] for one in good), [bad]])
    assert all(isinstance(found[n], RequestFailed) for n in (0, -1))
    assert [essence(answers) for answers in found[1:-1]] == [essence(answers) for answers in alone]


def test_a_store_that_is_away_is_no_request_failure(recommender, monkeypatch):
    before = FAILURES._value.get()
    monkeypatch.setattr(recommender, "batch", lambda *_: (_ for _ in ()).throw(StoreUnavailable("away")))
    found = asked_together(recommender, [[RecommendRequest(user="ann")]] * 2)
    assert all(isinstance(one, StoreUnavailable) for one in found)
    assert FAILURES._value.get() == before


def test_an_answer_that_cannot_be_written_is_told_to_its_caller_and_to_nobody_else(recommender):
    told = []

    def cannot_write(found):
        told.append(found)
        if not isinstance(found, Exception):
            raise ValueError("cannot be written")

    async def together():
        gather = MicroBatcher(recommender)
        gather.submit([RecommendRequest(user="ann")], b"", cannot_write)
        return await gather.recommend(RecommendRequest(user="bob"))

    assert asyncio.run(together()).items
    assert isinstance(told[-1], RequestFailed)


def test_over_http_the_culprit_gets_500_with_its_request_id_and_the_others_their_answers(server, monkeypatch):
    plant(monkeypatch, "answer", RuntimeError("planted"))

    async def together():
        async with httpx.AsyncClient(base_url=server.url) as client:
            users = ["ann", CULPRIT, "bob", "cid", CULPRIT]
            return await asyncio.gather(*(client.post("/v1/recommend", json={"user": user}) for user in users))

    with capture_logs() as logs:
        found = asyncio.run(together())
    assert [one.status_code for one in found] == [200, 500, 200, 200, 500]
    ids = [line["request_id"] for line in logs if "request_id" in line]
    assert any(ids[0] in found[n].json()["error"]["message"] for n in (1, 4))


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/events", {"type": "view", "user": "u", "item": "i", "context": {"q": "\ud83d"}}, "[0].context.q"),
        ("/v1/events", {"type": "view", "user": "u", "item": "i", "context": {"\ud83d": "q"}}, "[0].context.?"),
        ("/v1/events", {"type": "view", "user": "\ud83d" * 300, "item": "i"}, "[0].user"),
        ("/v1/events", {"type": "view", "user": "u", "item": "i", "\ud83d": "i"}, "[0].?"),
        ("/v1/events", {"type": "product", "item": "i", "attributes": {"a": "\udc00"}}, "[0].attributes.a"),
        ("/v1/recommend", {"user": "\ud83d"}, "user"),
        ("/v1/recommend", {"items": ["a", "\ud83d"]}, "items.1"),
        ("/v1/recommend", {"filters": {"where": "brand == '\ud83d'"}}, "filters.where"),
        ("/v1/recommend", {"filters": {"brands": ["\ud83d"]}}, "filters.brands.0"),
        ("/v1/recommend/batch", {"requests": [{}, {"session": "\ud83d"}]}, "requests.1.session"),
    ],
)
def test_half_an_emoji_is_refused_by_the_name_of_its_field(server, path, body, field):
    answer = server.client.post(path, content=_escaped(body), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


def _escaped(body):
    return json.dumps(body).encode()


def graphql(server, query, variables):
    body = _escaped({"query": query, "variables": variables})
    return server.client.post("/graphql", headers=JSON, content=body).json()


@pytest.mark.parametrize(
    "variables", [{"user": "\ud83d"}, {"filters": {"brands": ["\ud83d"]}}, {"cursor": "\ud83d"}, {"items": ["\ud83d"]}]
)
def test_half_an_emoji_is_refused_over_graphql_too(server, variables):
    query = """query($user: String, $items: [String!], $filters: Filters, $cursor: String) {
        recommend(user: $user, items: $items, filters: $filters, cursor: $cursor) { fallback } }"""
    answer = server.client.post(
        "/graphql", headers=JSON, content=_escaped({"query": query, "variables": variables})
    ).json()
    assert next(iter(variables)) in answer["errors"][0]["message"]


@pytest.mark.parametrize("field", ["similarItems(item: $text)", 'popular(scope: "brand", name: $text)'])
def test_half_an_emoji_is_no_item_and_no_name(server, field):
    query = "query($text: String!) { " + field + " { fallback } }"
    answer = server.client.post(
        "/graphql", headers=JSON, content=_escaped({"query": query, "variables": {"text": "\ud83d"}})
    ).json()
    assert "a valid string, unable to parse" in answer["errors"][0]["message"]
