"""Every field of a request, over REST, gRPC and GraphQL: each has its effect, and the three answers are one."""

import json

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from helpers.product import PRODUCTS

from serving.proto import headrace_pb2
from serving.request.requests import Filters, RecommendRequest

ANSWER = """items { item title score source rules contributions fields reason { code args text } } generation
anchor fallback placement strategy rulesVersion attribution nextCursor skippedSources
rules { rule action effect items } experiments"""
OWN = {"request_id", "milliseconds"}
"""What each answer has for itself."""


def items(answer):
    return [one["item"] for one in answer["items"]]


def texts(answer):
    return [one["reason"]["text"] for one in answer["items"]]


def codes(answer):
    return [one["reason"]["code"] for one in answer["items"]]


def fields_of(answer):
    return [one.get("fields") for one in answer["items"]]


def fields_of_product(item):
    """Return the fields that the tests below ask for, as the shop's products have them."""
    (product,) = [one for one in PRODUCTS if one["item"] == item]
    attributes = product.get("attributes", {})
    found = {name: product.get(name) for name in ("title", "price", "category", "stock")}
    found |= {"image": product.get("image_url"), "url": attributes.get("url")}
    return found | {"attr.countries": attributes.get("countries")}


def levels(plain, one):
    return plain["fallback"], one["fallback"]


# Of each field: what the request says beside it, its value, and what the answer with it shows against that without.
ANN = {"user": "ann", "count": 20}
FIELDS = {
    "user": ({"count": 5}, "ann", lambda plain, one: levels(plain, one) == ("popular", "personalised")),
    "session": ({"count": 5}, "visit", lambda plain, one: levels(plain, one) == ("popular", "personalised")),
    "items": (
        {"count": 5, "strategy": "bought_together"}, ["tea"],
        lambda plain, one: one["items"][0]["reason"]["args"] == {"item": "tea"} != plain["items"][0]["reason"]["args"],
    ),
    "placement": (
        {"user": "ann"}, "landing",
        lambda plain, one: (items(one)[0], len(one["items"]), one["placement"]) == ("sofa", 4, "landing"),
    ),
    "strategy": (ANN, "new", lambda plain, one: codes(one)[0] == "new_arrival" != codes(plain)[0]),
    "count": ({"user": "ann"}, 3, lambda plain, one: items(one) == items(plain)[:3] != items(plain)),
    "exclude": (ANN, ["cup"], lambda plain, one: set(items(plain)) - set(items(one)) == {"cup"}),
    "exclude_purchased": (
        {"user": "bob", "count": 20}, True, lambda plain, one: set(items(plain)) - set(items(one)) == {"tea", "sofa"}
    ),
    "exclude_out_of_stock": (ANN, False, lambda plain, one: set(items(one)) - set(items(plain)) == {"gone"}),
    "repeat": (
        {"user": "ann", "count": 40}, "exclude",
        lambda plain, one: items(plain)[-1] == "tea" and "tea" not in items(one),
    ),
    "filters": (ANN, {"brands": ["Acme"]}, lambda plain, one: set(items(one)) == {"tea", "mate"}),
    "country": (ANN, "FR", lambda plain, one: "cup" in items(plain) and "cup" not in items(one)),
    "diversity": (
        {"user": "ann", "count": 6}, 1.0, lambda plain, one: items(plain) != items(one) and len(one["items"]) == 6
    ),
    "diversity_method": (
        {"user": "eve", "count": 6, "diversity": 0.9}, "calibrated", lambda plain, one: items(plain) != items(one)
    ),
    "explore": (
        {"user": "ann", "count": 4, "seed": 5}, 2,
        lambda plain, one: "exploration" in codes(one)[2:] and "exploration" not in codes(plain),
    ),
    "seed": ({"user": "ann", "count": 9, "explore": 5}, 7, lambda plain, one: items(plain)[:4] == items(one)[:4]),
    "explain": (
        {"user": "ann", "placement": "landing"}, True,
        lambda plain, one: not plain["rules"] and [rule["rule"] for rule in one["rules"]] == ["first-sofa"],
    ),
    "cursor": ({"user": "ann", "count": 3}, None, lambda plain, one: not set(items(plain)) & set(items(one))),
    "deadline_ms": (
        ANN, 1e-6, lambda plain, one: not plain["skipped_sources"] and "next_items" in one["skipped_sources"]
    ),
    "lang": (
        {"user": "ann", "count": 1, "strategy": "new"}, "de",
        lambda plain, one: (texts(plain), texts(one)) == (["new in the shop"], ["neu im Angebot"]),
    ),
    "fields": (
        {"user": "ann", "count": 3}, ["title", "price", "image", "url", "category", "stock", "attr.countries"],
        lambda plain, one: fields_of(one) == [fields_of_product(item) for item in items(plain)] != fields_of(plain),
    ),
    "experiments": (
        {"user": "ann", "placement": "arms"}, {"lists": "fresh"},
        lambda plain, one: (one["experiments"], one["strategy"]) == ({"lists": "fresh"}, "new"),
    ),
}  # fmt: skip
FILTERS = {
    "category": ("drinks", {"tea", "mate"}),
    "brands": (["Initech", "Acme"], {"tea", "mate", "sofa", "local"}),
    "min_price": (100.0, {"sofa"}),
    "max_price": (5.0, {"tea", "mate", "local"}),
    "country": ("FR", {"local"}),
    "where": ("price > 6 and price < 9", {"cup"}),
}


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def literal(value):
    """Return a value as GraphQL writes it in a query."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{camel(name)}: {literal(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return json.dumps(value)


def snake(value):
    """Return a GraphQL answer with the names the other interfaces use."""
    if isinstance(value, dict):
        return {"".join("_" + c.lower() if c.isupper() else c for c in name): snake(one) for name, one in value.items()}
    return [snake(one) for one in value] if isinstance(value, list) else value


def over_graphql(shop, query, **variables):
    found = shop.client.post("/graphql", json={"query": query, "variables": variables}).json()
    assert "errors" not in found, found
    return snake(found["data"])


def three_ways(shop, request):
    """Return the answers of REST, gRPC and GraphQL, the last as an argument list and as a variable."""
    arguments = ", ".join(f"{camel(name)}: {literal(value)}" for name, value in request.items())
    variable = {camel(name): value for name, value in request.items()}
    if "filters" in variable:
        variable["filters"] = {camel(name): value for name, value in variable["filters"].items()}
    asked = headrace_pb2.RecommendRequest(**request)
    return {
        "rest": shop.ask(**request),
        "rpc": MessageToDict(
            shop.stub.Recommend(asked), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ),
        "graphql": over_graphql(shop, f"{{ recommend({arguments}) {{ {ANSWER} }} }}")["recommend"],
        "variables": over_graphql(
            shop, f"query($r: [Request!]!) {{ recommendBatch(requests: $r) {{ {ANSWER} }} }}", r=[variable]
        )["recommend_batch"][0],
    }


def comparable(value, name=""):
    """Return an answer with numbers rounded, and with nothing where a wire format leaves out what is empty."""
    if isinstance(value, dict):
        kept = {key: comparable(one, key) for key, one in value.items() if key not in OWN}
        return {key: one for key, one in kept.items() if one not in (None, "", [], {}, 0)}
    if isinstance(value, list):
        return [comparable(one) for one in value]
    return float(f"{value:.2g}") if isinstance(value, float) else value


def one_answer(shop, request):
    """Return the answer to a request, the same by every way."""
    answers = three_ways(shop, request)
    expected = comparable(answers["rest"])
    expected.pop("attribution", None)
    for way, answer in answers.items():
        found = comparable(answer)
        found.pop("attribution", None)
        assert found == expected, way
    return answers["rest"]


def test_the_tables_have_every_field():
    assert set(FIELDS) == set(RecommendRequest.model_fields)
    assert set(FILTERS) == set(Filters.model_fields)
    assert (len(FIELDS), len(FILTERS)) == (22, 6)
    assert {field.name for field in headrace_pb2.RecommendRequest.DESCRIPTOR.fields} == set(FIELDS)
    assert {field.name for field in headrace_pb2.Filters.DESCRIPTOR.fields} == set(FILTERS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_its_effect_by_every_way(shop, name):
    beside, value, shows = FIELDS[name]
    plain = shop.ask(**beside) if name == "seed" else one_answer(shop, beside)
    answer = one_answer(shop, beside | {name: plain["next_cursor"] if name == "cursor" else value})
    assert shows(plain, answer), (plain, answer)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_has_its_effect_by_every_way(shop, name):
    value, wanted = FILTERS[name]
    everything = items(shop.ask(user="ann", count=20))
    answer = one_answer(shop, ANN | {"filters": {name: value}})
    if name == "country":
        assert set(everything) - set(items(answer)) == wanted  # what is sold there only
    else:
        assert set(items(answer)) == wanted


def lists_for_everybody(shop, fields):
    """Return the similar and the popular items of REST, gRPC and GraphQL with these product fields."""
    named, asked = json.dumps(fields), "{ items { item fields } }"
    query = f'{{ similarItems(item: "tea", count: 2, fields: {named}) {asked} '
    query += f'popular(scope: "category", name: "drinks", count: 2, fields: {named}) {asked} }}'
    typed = over_graphql(shop, query)
    drinks = {"scope": "category", "name": "drinks", "count": 2, "fields": fields}
    rest = [
        shop.client.get("/v1/items/tea/similar", params={"count": 2, "fields": ",".join(fields)}),
        shop.client.get("/v1/popular", params=drinks),
    ]
    rpc = [
        shop.stub.SimilarItems(headrace_pb2.SimilarItemsRequest(item="tea", count=2, fields=fields)),
        shop.stub.Popular(headrace_pb2.PopularRequest(**drinks)),
    ]
    return [
        [answer.json() for answer in rest],
        [MessageToDict(answer, preserving_proto_field_name=True) for answer in rpc],
        [typed["similar_items"], typed["popular"]],
    ]


def test_lists_for_everybody_carry_product_fields_by_every_way(shop):
    names = ["title", "price", "image", "attr.countries"]
    found = lists_for_everybody(shop, names)
    similar, popular = found[0]
    assert items(popular) == ["mate", "tea"] != items(similar)  # of the categories below drinks
    for answer in (similar, popular):
        wanted = [{name: fields_of_product(item)[name] for name in names} for item in items(answer)]
        assert [list(fields.items()) for fields in fields_of(answer)] == [list(one.items()) for one in wanted]
    for way in found:
        assert [(items(one), fields_of(one)) for one in way] == [
            (items(one), fields_of(one)) for one in (similar, popular)
        ]


def test_an_unknown_product_field_is_refused_by_every_way(shop):
    said, wrong = "there is no product field 'prise'; did you mean price?", ["title", "prise"]
    for answer, field in (
        (shop.client.post("/v1/recommend", json={"fields": wrong}), "fields.1"),
        (shop.client.post("/v1/recommend/batch", json={"requests": [{"fields": wrong}]}), "requests.0.fields.1"),
        (shop.client.get("/v1/items/tea/similar", params={"fields": "title,prise"}), "fields.1"),
        (shop.client.get("/v1/popular", params={"fields": wrong}), "fields.1"),
    ):
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
        assert answer.json()["error"]["message"].startswith(said)
    request = headrace_pb2.RecommendRequest(fields=wrong)
    for call, message in (
        (shop.stub.Recommend, request),
        (shop.stub.RecommendBatch, headrace_pb2.BatchRequest(requests=[request])),
        (shop.stub.SimilarItems, headrace_pb2.SimilarItemsRequest(item="tea", fields=wrong)),
        (shop.stub.Popular, headrace_pb2.PopularRequest(fields=wrong)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(message)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert said in refused.value.details()
    fields = f"fields: {json.dumps(wrong)}"
    for query in (
        f"recommend({fields})", f"recommendBatch(requests: [{{{fields}}}])", f"popular({fields})",
        f'similarItems(item: "tea", {fields})',
    ):  # fmt: skip
        found = shop.client.post("/graphql", json={"query": f"{{ {query} {{ fallback }} }}"}).json()
        assert said in found["errors"][0]["message"]
        assert found["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


def test_batches_and_streams_carry_product_fields_where_they_are_named(shop):
    many = [{"user": "ann", "count": 2, "fields": ["price"]}, {"user": "ann", "count": 2}]
    answers = shop.client.post("/v1/recommend/batch", json={"requests": many}).json()["answers"]
    assert [list(one) for one in fields_of(answers[0])] == [["price"]] * 2
    assert fields_of(answers[1]) == [None] * 2
    requests = [headrace_pb2.RecommendRequest(**one) for one in many]
    streamed = list(shop.stub.RecommendStream(iter(requests)))
    batch = shop.stub.RecommendBatch(headrace_pb2.BatchRequest(requests=requests)).answers
    for found in (streamed, batch):
        plain = [MessageToDict(answer, preserving_proto_field_name=True) for answer in found]
        assert [fields_of(answer) for answer in plain] == [fields_of(answer) for answer in answers]


def test_a_session_and_a_user_of_one_name_are_two_visitors(shop):
    assert one_answer(shop, {"session": "visit", "count": 3})["fallback"] == "personalised"
    assert one_answer(shop, {"user": "visit", "count": 3})["fallback"] == "popular"
    assert one_answer(shop, {"session": "ann", "count": 3})["fallback"] == "popular"


def test_what_a_visitor_dislikes_is_never_shown(shop):
    everybody, dora = (one_answer(shop, {**ANN, "user": user}) for user in ("nobody", "dora"))
    assert set(items(everybody)) - set(items(dora)) == {"cup"}


def rows_of(shop):
    """Return what is in Redis, but for what moves by itself: positions, owners and leases."""
    client = shop.redis.client()
    keys = [key for key in client.keys("*") if b"}u:" in key or b"}i:" in key or b"}v:" in key]
    return {key: client.get(key) for key in keys}


def test_law_7_answers_change_no_row(shop):
    shop.wait_until_folded()
    before = rows_of(shop)
    for user in ("ann", "nobody", "eve"):
        three_ways(shop, {"user": user, "count": 20, "items": ["cup"], "explain": True})
        shop.client.get("/v1/items/tea/similar")
    after = rows_of(shop)
    assert after == before
    assert len(before) > 50
