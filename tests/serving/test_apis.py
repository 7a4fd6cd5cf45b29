import re

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from serving.proto import headrace_pb2, headrace_pb2_grpc

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real HTTP and a real gRPC server over one recommender; gives (client, stub, log)."""
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    with (
        running(tmp_path_factory.mktemp("server"), recommender) as found,
        grpc.insecure_channel(f"127.0.0.1:{found.grpc_port}") as channel,
    ):
        yield found.client, headrace_pb2_grpc.HeadraceStub(channel), found.log


def test_rest_and_grpc_give_the_same_answer(server):
    client, stub, _ = server
    rest = client.post("/v1/recommend", json={"user": "ann", "count": 4, "repeat": "exclude"}).json()
    rpc = stub.Recommend(headrace_pb2.RecommendRequest(user="ann", count=4, repeat="exclude"))
    rpc = MessageToDict(rpc, preserving_proto_field_name=True)
    assert next(i["item"] for i in rest["items"]) == "cup"
    for one, other in zip(rest["items"], rpc["items"], strict=True):
        assert one["item"] == other["item"]
        assert one["reason"]["text"] == other["reason"]["text"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-3)
    similar = client.get("/v1/items/tea/similar").json()
    assert [i.item for i in stub.SimilarItems(headrace_pb2.SimilarItemsRequest(item="tea")).items] == [
        i["item"] for i in similar["items"]
    ]
    popular = client.get("/v1/popular", params={"count": 3}).json()
    assert [i.item for i in stub.Popular(headrace_pb2.PopularRequest(count=3)).items] == [
        i["item"] for i in popular["items"]
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [({"count": 0}, "count"), ({"count": 201}, "count"), ({"user": ""}, "user"), ({"repeat": "often"}, "repeat"),
     ({"colour": "red"}, "colour"), ({"items": [1]}, "items.0")],
)  # fmt: skip
def test_a_bad_request_names_the_field(server, body, field):
    answer = server[0].post("/v1/recommend", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field


def test_grpc_refuses_with_the_field_too(server):
    _, stub, _ = server
    for call, request, field in (
        (stub.Recommend, headrace_pb2.RecommendRequest(count=201), "count"),
        (stub.SimilarItems, headrace_pb2.SimilarItemsRequest(), "item"),
        (stub.Popular, headrace_pb2.PopularRequest(scope="moon"), "scope"),
        (stub.Popular, headrace_pb2.PopularRequest(scope="brand"), "name"),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            call(request)
        assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.value.details().startswith(field)


def test_events_are_durable_when_they_are_accepted(server):
    client, _, log = server
    before = log.end()
    answer = client.post(
        "/v1/events", json=[{"type": "view", "user": "u", "item": "tea"}, {"type": "product_gone", "item": "x"}]
    )
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 2
    assert log.end()["product-views:0"] == before["product-views:0"] + 1
    assert log.end()["product-updates:0"] == before["product-updates:0"] + 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"type": "stare", "user": "u"}, 422, "[0].type"),
        ({"type": "view", "user": "u"}, 422, "[0].item"),
        ({"type": "view", "item": "i"}, 422, "[0].user"),
        ({"type": "view", "user": "u", "item": "i", "price": -1}, 422, "[0].price"),
        (
            [{"type": "view", "user": "u", "item": "i"}, {"type": "rating", "user": "u", "item": "i", "stars": 6}],
            422,
            "[1].stars",
        ),
        ([], 422, "body"),
        ("text", 422, "[0]"),
    ],
)  # fmt: skip
def test_a_bad_event_is_named_and_nothing_is_taken(server, body, status, field):
    client, _, log = server
    before = log.end()
    answer = client.post("/v1/events", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    assert log.end() == before


def test_broken_bodies_paths_and_sizes_get_4xx(server):
    client = server[0]
    assert client.post("/v1/events", content=b"{", headers=JSON).status_code == 400
    assert client.post("/v1/recommend", content=b"{", headers=JSON).status_code == 422
    assert client.get("/v1/nothing").status_code == 404
    assert client.post("/v1/events", content=b"x" * (1 << 20 | 1)).status_code == 413
    assert client.get("/v1/popular", params={"scope": "brand"}).json()["error"]["field"] == "name"


def test_health_readiness_metrics_and_the_description_are_there(server):
    client = server[0]
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").status_code == 200
    assert "headrace_answers_total" in client.get("/metrics").text
    assert "/v1/recommend" in client.get("/openapi.json").json()["paths"]


QUERY = """query($user: String, $count: Int, $filters: Filters) {
  recommend(user: $user, count: $count, repeat: "exclude", filters: $filters, diversity: 0.2) {
    items { item title score source reason { code args text } } generation anchor fallback
  }
}"""


def graphql(client, query, **variables):
    return client.post("/graphql", json={"query": query, "variables": variables}).json()


@pytest.mark.parametrize("filters", [None, {"category": "x"}, {"brands": ["b"], "max_price": 3.0}])
def test_the_same_request_three_ways_has_one_answer(server, filters):
    client, stub, _ = server
    rest = client.post(
        "/v1/recommend", json={"user": "ann", "count": 6, "repeat": "exclude", "filters": filters, "diversity": 0.2}
    ).json()
    wanted = headrace_pb2.RecommendRequest(user="ann", count=6, repeat="exclude", filters=filters, diversity=0.2)
    rpc = MessageToDict(stub.Recommend(wanted), preserving_proto_field_name=True)
    camel = filters and {name.replace("max_price", "maxPrice"): value for name, value in filters.items()}
    three = graphql(client, QUERY, user="ann", count=6, filters=camel)["data"]["recommend"]
    for field in ("generation", "fallback"):
        assert rest[field] == rpc[field] == three[field]
    lists = [answer.get("items", []) for answer in (rest, rpc, three)]
    assert [one["item"] for one in lists[0]] == [one["item"] for one in lists[1]] == [one["item"] for one in lists[2]]
    for one, other, third in zip(*lists, strict=True):
        assert one["reason"]["text"] == other["reason"]["text"] == third["reason"]["text"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-3) == pytest.approx(third["score"], rel=1e-3)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ recommend(count: 0) { fallback } }", "count"),
        ('{ recommend(repeat: "never") { fallback } }', "repeat"),
        ("{ recommend(filters: {minPrice: 3, maxPrice: 1}) { fallback } }", "filters"),
        ('{ popular(scope: "moon") { fallback } }', "scope"),
        ('{ similarItems(item: "tea", count: 999) { fallback } }', "count"),
        ("{ recommend { nothing } }", "nothing"),
    ],
)
def test_a_bad_graphql_request_names_the_field(server, query, said):
    client, _, _ = server
    assert said in graphql(client, query)["errors"][0]["message"]


def test_graphql_knows_similar_and_popular(server):
    client, _, _ = server
    found = graphql(client, '{ similarItems(item: "tea") { items { item } } popular { items { item } } }')["data"]
    assert found["similarItems"]["items"] == [
        {"item": one["item"]} for one in client.get("/v1/items/tea/similar").json()["items"]
    ]
    assert [one["item"] for one in found["popular"]["items"]] == [
        one["item"] for one in client.get("/v1/popular").json()["items"]
    ]


def test_answers_of_all_interfaces_are_counted(server):
    client, stub, _ = server

    def counted():
        found = {}
        for line in client.get("/metrics").text.splitlines():
            if match := re.match(r'headrace_answers_total\{fallback="\w+",method="(\w+)"\} (\S+)', line):
                found[match[1]] = found.get(match[1], 0) + float(match[2])
            if match := re.match(r'headrace_answer_seconds_count\{method="(\w+)"\} (\S+)', line):
                found[match[1], "seconds"] = float(match[2])
        return found

    before = counted()
    client.post("/v1/recommend", json={"count": 1})
    client.post("/v1/recommend/batch", json={"requests": [{"count": 1}] * 3})
    client.post("/graphql", json={"query": "{recommend(count: 1) {requestId}}"})
    stub.Recommend(headrace_pb2.RecommendRequest(count=1))
    list(stub.RecommendStream(iter([headrace_pb2.RecommendRequest(count=1)] * 4)))
    stub.RecommendBatch(headrace_pb2.BatchRequest(requests=[headrace_pb2.RecommendRequest(count=1)] * 2))
    after = counted()
    more = {"recommend": (1, 1), "batch": (3, 1), "graphql": (1, 1), "grpc": (5, 5), "grpc_batch": (2, 1)}
    for method, (answers, calls) in more.items():
        assert after[method] - before.get(method, 0) == answers
        assert after[method, "seconds"] - before.get((method, "seconds"), 0) == calls
