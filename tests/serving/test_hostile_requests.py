"""Good requests among hostile ones, over HTTP, gRPC and GraphQL: the good ones are answered as they would be alone."""

import asyncio
import base64
import json

import grpc
import httpx
import pytest
from google.protobuf import json_format
from helpers.books import PRODUCTS
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from serving.engine.metrics import FAILURES
from serving.proto import headrace_pb2, headrace_pb2_grpc

JSON = {"Content-Type": "application/json"}
QUERY = "query($requests: [Request!]!) { recommendBatch(requests: $requests) { items { item } fallback } }"
NAMES = {
    "deadline_ms": "deadlineMs",
    "exclude_purchased": "excludePurchased",
    "min_price": "minPrice",
    "max_price": "maxPrice",
}
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), PRODUCTS)
    with running(tmp_path_factory.mktemp("hostile"), recommender) as found:
        channel = grpc.insecure_channel(f"127.0.0.1:{found.grpc_port}")
        found.stub = headrace_pb2_grpc.HeadraceStub(channel)
        yield found
        channel.close()


numbers = st.sampled_from(
    [
        "18446744073709551616",
        "-1",
        "9" * 400,
        "1e999",
        "1e308 * 1e308",
        "0 / 0",
        "1 / 0",
        "-1e308 - 1e308",
        "0x" + "f" * 300,
    ]
)
texts = st.sampled_from(
    ["", "\ud83d", "\x00", "a" * 256, "a" * 257, "\u202e", "session:ann", "ü" * 128, "'", "💥" * 64]
)
conditions = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["price", "stock", "margin", "number(attr.x)", "number('attr.x')"]),
              st.sampled_from(["<", "==", "!=", ">=", "in", "not in"]), numbers),
    st.builds("price in [{}, {}]".format, numbers, numbers),
    st.builds("{} or price < 3".format, st.sampled_from(["True", "1 < 2 < price", "brand == '\\ud83d'", "likes('x')"])),
    st.sampled_from(["not " * 70 + "True", "-" * 500 + "1 > 0", "1" + "+1" * 400 + " > price", "(" * 300]),
    st.text(max_size=30),
)  # fmt: skip
filters = st.fixed_dictionaries(
    {}, optional={
        "where": conditions, "category": texts, "brands": st.lists(texts, max_size=2),
        "min_price": st.sampled_from([1e308, -1, float("inf"), float("nan"), 10**400]), "max_price": st.just(0),
    },
)  # fmt: skip
cursors = st.one_of(
    texts, st.binary(max_size=40).map(lambda data: base64.urlsafe_b64encode(data).decode()), st.just("A" * 16_000)
)
hostile = st.fixed_dictionaries(
    {}, optional={
        "user": texts, "session": texts, "items": st.lists(texts, max_size=3), "exclude": st.lists(texts, max_size=3),
        "filters": filters, "cursor": cursors, "country": texts, "count": st.sampled_from([-1, 0, 201, 2**31 - 1, 200]),
        "seed": st.sampled_from([-1, 2**31 - 1]), "deadline_ms": st.sampled_from([1e-300, 1e308, -1.0, float("nan")]),
        "placement": texts, "diversity": st.sampled_from([0.5, 2.0, float("inf")]),
    },
).filter(bool)  # fmt: skip
good = st.fixed_dictionaries(
    {"user": st.sampled_from(["ann", "bob", "v1", "nobody"]), "count": st.integers(1, 6)},
    optional={
        "items": st.lists(st.sampled_from(["tea", "cup", "unknown"]), min_size=1, max_size=2),
        "exclude": st.just(["old"]),
        "filters": st.sampled_from([{"where": "price < 18446744073709551616"}, {"brands": ["Acme"]}]),
    },
)
books = st.fixed_dictionaries({
    "rules": st.lists(st.fixed_dictionaries({
        "id": st.sampled_from(["a", "b", "\ud83d"]), "action": st.sampled_from(["exclude", "include", "boost"]),
        "where": conditions, "factor": st.sampled_from([1e999, 1e-300, 1000, 10**400]), "when": conditions,
    }), max_size=3),
})  # fmt: skip
ways = st.sampled_from(["http", "http_batch", "graphql", "grpc", "grpc_batch"])


def essence(answer):
    return [one["item"] for one in answer["items"]], answer["fallback"]


async def over_http(client, way, asked):
    """Return (answer or None, whether the server was at fault)."""
    path, body = ("/v1/recommend", asked) if way == "http" else ("/v1/recommend/batch", {"requests": [{}, asked]})
    found = await client.post(path, content=json.dumps(body).encode(), headers=JSON)
    if found.status_code != 200:
        assert found.json()["error"]["message"]
        return None, found.status_code >= 500
    return essence(found.json() if way == "http" else found.json()["answers"][1]), False


async def over_graphql(client, asked):
    def named(values):
        return {NAMES.get(name, name): named(one) if isinstance(one, dict) else one for name, one in values.items()}

    body = {"query": QUERY, "variables": {"requests": [named(asked)]}}
    found = await client.post("/graphql", content=json.dumps(body).encode(), headers=JSON)
    if found.status_code != 200:
        return None, found.status_code >= 500
    said = found.json()
    if said.get("errors"):
        return None, "internal" in str(said).lower()
    return essence(said["data"]["recommendBatch"][0]), False


async def over_grpc(stub, way, asked):
    try:
        request = headrace_pb2.RecommendRequest(**asked)
    except (ValueError, TypeError, OverflowError):  # the client itself cannot say it
        return None, False
    try:
        if way == "grpc":
            answer = await asyncio.to_thread(stub.Recommend, request, timeout=60)
        else:
            batch = headrace_pb2.BatchRequest(requests=[headrace_pb2.RecommendRequest(), request])
            answer = (await asyncio.to_thread(stub.RecommendBatch, batch, timeout=60)).answers[1]
    except grpc.RpcError as error:
        return None, error.code() not in REFUSED
    return essence({"items": [], "fallback": ""} | json_format.MessageToDict(answer)), False


async def ask_all(server, calls, tried=()):
    """Return what comes of calls, (way, request), that are under way together, while books are tried beside them."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:

        async def one(way, asked):
            if way == "graphql":
                return await over_graphql(client, asked)
            http = way.startswith("http")
            return await (over_http(client, way, asked) if http else over_grpc(server.stub, way, asked))

        async def book(document):
            request = {"book": document, "request": {"user": "ann"}}
            previewed = await client.post("/v1/rules/preview", content=json.dumps(request).encode(), headers=JSON)
            linted = await client.post("/v1/rules/lint", content=json.dumps(document).encode(), headers=JSON)
            return [found.status_code for found in (previewed, linted)]

        found, statuses = await asyncio.gather(
            asyncio.gather(*(one(*call) for call in calls)), asyncio.gather(*map(book, tried))
        )
    assert all(status < 500 for both in statuses for status in both)
    return found


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(ways, good), min_size=1, max_size=8), st.lists(st.tuples(ways, hostile), min_size=1, max_size=8),
    st.lists(books, max_size=1), st.randoms(use_true_random=False),
)  # fmt: skip
def test_good_requests_are_answered_as_they_would_be_alone(server, wanted, others, tried, random):
    alone = [asyncio.run(ask_all(server, [call]))[0] for call in wanted]
    before = FAILURES._value.get()
    calls = [(call, expected) for call, expected in zip(wanted, alone, strict=True)] + [(call, None) for call in others]
    random.shuffle(calls)
    found = asyncio.run(ask_all(server, [call for call, _ in calls], tried))
    for (call, expected), (answer, at_fault) in zip(calls, found, strict=True):
        assert not at_fault, call
        if expected is not None:
            assert answer is not None, call
            assert (answer, False) == expected, call
    assert FAILURES._value.get() == before
    assert server.recommender.shop.rules.version == 0
