"""What a key may ask for in a second is counted in lists, over all ways in; and how much one GraphQL query may ask."""

import time

import grpc
import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from structlog.testing import capture_logs

from serving.auth.api_keys import make_key, write_keys
from serving.graphql.limits import MAX_ALIASES, MAX_DEPTH, MAX_SAME
from serving.proto import headrace_pb2, headrace_pb2_grpc

JSON = {"Content-Type": "application/json"}

RATE = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea")])
    with running(tmp_path_factory.mktemp("server"), recommender, require_key=True) as found:
        yield found


class Clock:
    """Stands still, however slow the machine is."""

    now = 1e9

    def time(self):
        return self.now


@pytest.fixture
def slow(server, monkeypatch):
    """The server, with a new key that may ask for RATE lists a second; nothing of it is spent."""
    server.clock = Clock()
    monkeypatch.setattr("limits.storage.memory.time", server.clock)
    secret, key = make_key(f"slow{time.monotonic_ns()}", ("recommend",), RATE)
    write_keys(server.keys, [key])
    server.guard.follow()
    server.headers = {"Authorization": f"bearer {secret}"}
    server.metadata = (("authorization", f"Bearer {secret}"),)
    return server


def post(server, path, body):
    return server.client.post(path, json=body, headers=server.headers)


def batch(server, n, path="/v1/recommend/batch"):
    return post(server, path, {"requests": [{"count": 1}] * n})


def by_route(server, n):
    """As `batch`, past the hot path."""
    body = b'{"requests": [%s]}' % b",".join([b'{"count": 1}'] * n)
    return server.client.post("/v1/recommend/batch?x", content=body, headers=server.headers | JSON)


@pytest.mark.parametrize("ask", [batch, by_route])
def test_a_batch_costs_as_many_lists_as_it_asks_for(slow, ask):
    assert ask(slow, RATE - 1).status_code == 200
    refused = ask(slow, 2)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert post(slow, "/v1/recommend", {}).status_code == 200
    assert post(slow, "/v1/recommend", {}).status_code == 429
    assert slow.client.get("/v1/popular", headers=slow.headers).status_code == 429
    slow.clock.now += 1.001  # as the answer says
    assert ask(slow, RATE).status_code == 200


def test_a_batch_larger_than_the_rate_is_refused_for_good_and_costs_nothing(slow):
    refused = batch(slow, RATE + 1)
    assert refused.status_code == 422
    assert f"{RATE + 1} lists" in refused.json()["error"]["message"]
    assert batch(slow, RATE).status_code == 200


def test_requests_that_cannot_be_read_cost_one_each(slow):
    codes = [slow.client.post("/v1/recommend/batch", content=b"{", headers=slow.headers | JSON).status_code
             for _ in range(RATE + 1)]  # fmt: skip
    assert codes == [422] * RATE + [429]


def stub(channel):
    return headrace_pb2_grpc.HeadraceStub(channel)


def test_a_batch_over_grpc_costs_as_many_lists_as_it_asks_for(slow):
    def ask(n):
        try:
            request = headrace_pb2.BatchRequest(requests=[headrace_pb2.RecommendRequest()] * n)
            stub(channel).RecommendBatch(request, metadata=slow.metadata)
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()

    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel:
        assert ask(RATE + 1) == grpc.StatusCode.INVALID_ARGUMENT
        assert ask(RATE) == grpc.StatusCode.OK
        assert ask(1) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_each_message_of_a_stream_costs_one(slow):
    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel:
        requests = iter([headrace_pb2.RecommendRequest()] * (RATE + 5))
        answers = stub(channel).RecommendStream(requests, metadata=slow.metadata)
        assert len([next(answers) for _ in range(RATE)]) == RATE
        with pytest.raises(grpc.RpcError) as refusal:
            next(answers)
    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_key_that_is_removed_ends_its_open_stream(slow):
    def requests():
        yield headrace_pb2.RecommendRequest()
        write_keys(slow.keys, [])
        slow.guard.follow()
        yield headrace_pb2.RecommendRequest()

    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel, pytest.raises(grpc.RpcError) as refusal:
        list(stub(channel).RecommendStream(requests(), metadata=slow.metadata, timeout=10))
    assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_each_graphql_field_costs_what_it_asks_for_and_those_within_the_rate_are_answered(slow):
    aliases = " ".join(f"a{n}: popular {{ fallback }}" for n in range(RATE - 5))
    query = f"{{ {aliases} b: recommendBatch(requests: [{'{} ' * 5}]) {{ fallback }} c: recommend {{ fallback }} }}"
    answer = post(slow, "/graphql", {"query": query}).json()
    assert answer["data"].pop("c") is None
    assert all(answer["data"].values())
    assert len(answer["data"]["b"]) == 5
    [error] = answer["errors"]
    assert (error["path"], error["extensions"]["code"]) == (["c"], "RATE_LIMITED")
    large = post(slow, "/graphql", {"query": f"{{ recommendBatch(requests: [{'{} ' * (RATE + 1)}]) {{ fallback }} }}"})
    assert large.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.fixture
def free(server):
    """The server, with a key without a limit."""
    secret, key = make_key("free", ("recommend",))
    write_keys(server.keys, [key])
    server.guard.follow()
    server.headers = {"X-API-Key": secret}
    return server


def test_a_page_s_worth_of_lists_with_all_their_fields_is_within_the_limits(free):
    fields = """items { item title score source reason { code args text } rules contributions } requestId generation
        anchor fallback placement strategy rulesVersion attribution nextCursor skippedSources
        rules { rule action effect items } milliseconds experiments"""
    one = 'recommend(user: "ann", items: ["tea"], count: 3, filters: {category: "x", maxPrice: 3}, explain: true)'
    aliases = " ".join(f"a{n}: {one} {{ ...All }}" for n in range(MAX_ALIASES))
    answer = post(free, "/graphql", {"query": f"{{ {aliases} }} fragment All on Answer {{ {fields} }}"}).json()
    assert "errors" not in answer
    assert len(answer["data"]) == MAX_ALIASES


def nested(depth):
    return "{ recommend { items { reason " + "{ text " * depth + "} " * depth + "} } }"


def doubling(n):
    """Fragments that spread the next one twice: 2 ** n fields for who follows them."""
    parts = [f"fragment F{k} on Query {{ ...F{k + 1} ...F{k + 1} }}" for k in range(n)]
    return "{ ...F0 } " + " ".join(parts) + f" fragment F{n} on Query {{ a: popular {{ fallback }} }}"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("{" + " ".join(f"a{n}: popular {{ fallback }}" for n in range(MAX_ALIASES + 1)) + "}", "aliases"),
        (nested(MAX_DEPTH), "depth"),
        ("{" + "popular { fallback } " * 1000 + "}", "tokens"),
        (doubling(7), "fragment spreads"),
        (doubling(150), "fragment spreads"),
        ("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "fragment spreads"),
        ("{" + "popular { fallback } " * (MAX_SAME + 1) + "}", "fields"),
        ("{" + "popular { fallback } " * 490 + "}", "fields"),
        ("{" + "a {" * 600 + "b" + "}" * 601, "nested"),
        ("{" + "... {" * 600 + "popular { fallback }" + "}" * 600 + "}", ""),
        ("{ nothing }", "nothing"),
        ("{ popular", "Syntax"),
    ],
)
def test_a_query_that_asks_for_too_much_is_refused_at_once_and_says_why(free, query, says):
    with capture_logs() as logs:
        answer = post(free, "/graphql", {"query": query})
    assert answer.status_code == 200
    assert [error["extensions"]["code"] for error in answer.json()["errors"]][:1] == ["BAD_REQUEST"]
    assert says in answer.text
    assert "Traceback" not in answer.text
    assert not [line for line in logs if line["log_level"] == "error"]


QUERY = '{"query": "{popular{fallback}}"'
DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    "body",
    [f"[{QUERY}}}]", "[" * 100_000, '{"query": 1}', "{", "null", '""', QUERY + ', "variables": [1]}',
     QUERY + ', "variables": {"x": ' + DEEP + "}}"],
)  # fmt: skip
def test_a_body_that_is_no_query_gets_a_4xx(free, body):
    with capture_logs() as logs:
        answer = free.client.post("/graphql", content=body, headers=free.headers | JSON, timeout=20)
    assert 400 <= answer.status_code < 500
    assert not [line for line in logs if line["log_level"] == "error"]


def test_introspection_is_allowed(free):
    from graphql import get_introspection_query

    answer = post(free, "/graphql", {"query": get_introspection_query()}).json()
    assert answer["data"]["__schema"]["queryType"]["name"] == "Query"


def test_mistakes_are_readable_and_errors_within_are_masked_and_logged_with_their_id(free, monkeypatch):
    answer = post(free, "/graphql", {"query": "{ a: popular(count: 0) { fallback } b: popular { fallback } }"}).json()
    assert answer["data"] == {"a": None, "b": {"fallback": "popular"}}
    assert answer["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "field": "count"}

    def broken(*_, **__):
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(free.recommender, "similar_items", broken)
    with capture_logs() as logs:
        answer = post(free, "/graphql", {"query": '{ similarItems(item: "tea") { fallback } }'})
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "swordfish" not in answer.text
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert line["request_id"] == error["extensions"]["request_id"]
    assert "swordfish" in str(line["exc_info"])


def test_no_log_line_holds_a_key(free, monkeypatch):
    secret = free.headers["X-API-Key"]

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(free.recommender, "popular", broken)
    with capture_logs() as logs:
        assert httpx.get(f"{free.url}/v1/popular", headers=free.headers).status_code == 500
        httpx.post(f"{free.url}/graphql", json={"query": "{ popular { fallback } }"}, headers=free.headers)
        httpx.get(f"{free.url}/v1/live", headers={"Authorization": f"Bearer {secret}x"})
        free.guard.follow()
    assert len(logs) >= 2
    assert secret not in str(logs)
