"""Every route, RPC and GraphQL field against every scope and against no key, over a server that runs."""

import grpc
import pytest
from google.protobuf import descriptor_pool
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from serving.auth.access import SCOPES
from serving.auth.api_keys import make_key, write_keys
from serving.proto import headrace_pb2

CALLERS = ("", *SCOPES)
FREE = set(CALLERS)
HTTP = {
    ("GET", "/"): FREE, ("GET", "/explorer/{name}"): FREE, ("GET", "/healthz"): FREE, ("GET", "/readyz"): FREE,
    ("GET", "/openapi.json"): FREE, ("GET", "/docs"): FREE, ("GET", "/docs/{name}"): FREE,
    ("POST", "/v1/recommend"): {"recommend"}, ("POST", "/v1/recommend/batch"): {"recommend"},
    ("GET", "/graphql"): {"recommend"}, ("POST", "/graphql"): {"recommend"},
    ("GET", "/v1/popular"): {"recommend"}, ("GET", "/v1/items/{item}/similar"): {"recommend"},
    ("POST", "/v1/events"): {"events", "catalogue", "privacy"},
    ("GET", "/v1/items/{item}"): {"catalogue"},
    ("GET", "/v1/users"): {"privacy"}, ("GET", "/v1/users/{user}"): {"privacy"},
    ("GET", "/v1/rules"): {"rules"}, ("PUT", "/v1/rules"): {"rules"}, ("GET", "/v1/rules/history"): {"rules"},
    ("POST", "/v1/rules/preview"): {"rules"}, ("POST", "/v1/rules/read"): {"rules"},
    ("POST", "/v1/rules/lint"): {"rules"},
    ("GET", "/v1/live"): {"operate"}, ("GET", "/metrics"): {"operate"},
}  # fmt: skip
UNKNOWN = [
    ("GET", "/v1/nothing"), ("GET", "/v1"), ("DELETE", "/v1/recommend"), ("POST", "/v1/recommend/"),
    ("GET", "//v1/users"), ("GET", "/V1/users"), ("GET", "/v1/users/"), ("GET", "/v1/users/ann/features"),
    ("PUT", "/v1/rules/"), ("PATCH", "/v1/rules"), ("OPTIONS", "/v1/nothing"), ("HEAD", "/v1/nothing"),
    ("GET", "/documents"), ("GET", "/admin"),
    ("GET", "/explorer/a/b"), ("GET", "/healthz/x"),
]  # fmt: skip
EVENTS = {
    "events": [{"type": "view", "user": "u", "item": "tea"}, {"type": "purchase", "user": "u", "item": "tea"},
               {"type": "rating", "user": "u", "item": "tea", "stars": 4}],
    "catalogue": [{"type": "product", "item": "tea"}, {"type": "product_gone", "item": "tea"}],
    "privacy": [{"type": "erasure", "user": "u"}],
}  # fmt: skip
SERVICE = "headrace.v1.Headrace"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
FIELDS = {
    "recommend": 'recommend(user: "ann") { fallback }',
    "recommendBatch": 'recommendBatch(requests: [{user: "ann"}]) { fallback }',
    "similarItems": 'similarItems(item: "tea") { fallback }',
    "popular": "popular { fallback }",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea")])
    with running(tmp_path_factory.mktemp("server"), recommender, require_key=True) as found:
        made = {scope: make_key(scope, (scope,)) for scope in SCOPES}
        write_keys(found.keys, [key for _, key in made.values()])
        found.guard.follow()
        found.secrets = {"": ""} | {scope: secret for scope, (secret, _) in made.items()}
        yield found


def ask(server, caller, method, path, **more):
    headers = {"X-API-Key": server.secrets[caller]} if caller else {}
    return server.client.request(method, path, headers=headers, **more)


def refusal(caller):
    return 403 if caller else 401


def routes_of(server):
    """All routes, those of included routers too; of web sockets there is a test below."""
    found, waiting = [], list(server.app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            prefix = route.include_context.prefix
            found += [(m, prefix + one.path) for one in inner.routes for m in getattr(one, "methods", ())]
        else:
            found += [(method, route.path) for method in route.methods or ()]
    return {(method, path.replace("//", "/")) for method, path in found if method != "HEAD"}


def test_the_table_of_this_test_has_every_route_there_is(server):
    assert routes_of(server) == set(HTTP)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), list(HTTP))
def test_a_route_is_open_to_its_scope_only(server, method, path, caller):
    filled = path.format(name="begin.js" if path.startswith("/docs") else "explorer.js", item="tea", user="ann")
    more = {"params": {"query": "{popular{fallback}}"}} if method == "GET" and path == "/graphql" else {}
    if method != "GET":
        more["json"] = {"query": "{popular{fallback}}"} if path == "/graphql" else {}
    if path == "/v1/events":
        more["json"] = EVENTS.get(caller, EVENTS["events"])
    status = ask(server, caller, method, filled, **more).status_code
    if caller in HTTP[method, path]:
        assert status in (200, 201, 202, 422)
        assert status != 422 or path in ("/v1/rules", "/v1/recommend/batch")  # what is asked there has no body to read
    else:
        assert status == refusal(caller)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_a_path_that_is_in_no_table_needs_the_highest_scope(server, method, path, caller):
    # As it stands: a client of comfort would take the slashes for a host.
    request = server.client.build_request(method, server.url + path, headers={"X-API-Key": server.secrets[caller]})
    status = server.client.send(request).status_code
    assert status in ((307, 404, 405) if caller == "operate" else (refusal(caller),))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("scope", list(EVENTS))
def test_an_event_needs_the_scope_of_its_type(server, scope, caller):
    before = server.log.end()
    for event in EVENTS[scope]:
        answer = ask(server, caller, "POST", "/v1/events", json=event)
        assert answer.status_code == (202 if caller == scope else refusal(caller))
    assert (server.log.end() != before) == (caller == scope)


def test_an_erasure_among_views_refuses_the_whole_call_and_is_named(server):
    before = server.log.end()
    answer = ask(server, "events", "POST", "/v1/events", json=[*EVENTS["events"], *EVENTS["privacy"]])
    assert (answer.status_code, answer.json()["error"]["field"]) == (403, "[3].type")
    assert "privacy" in answer.json()["error"]["message"]
    assert server.log.end() == before


def rpcs():
    """Every method of the services the server has, with who may call it."""
    pool = descriptor_pool.Default()
    service = pool.FindServiceByName(SERVICE)
    assert {method.name for method in service.methods} == {
        "Recommend", "RecommendBatch", "RecommendStream", "SimilarItems", "Popular"
    }  # fmt: skip
    for method in service.methods:
        yield f"/{SERVICE}/{method.name}", method.client_streaming, {"recommend"}
    for name in ("Check", "Watch"):
        yield f"/grpc.health.v1.Health/{name}", False, FREE
    yield f"/{REFLECTION}/ServerReflectionInfo", True, FREE
    yield f"/{SERVICE}/Nothing", False, set()


BODIES = {
    "RecommendBatch": headrace_pb2.BatchRequest(requests=[headrace_pb2.RecommendRequest()]),
    "SimilarItems": headrace_pb2.SimilarItemsRequest(item="tea"),
}


def code_of(server, path, streams, caller):
    name = path.rpartition("/")[2]
    body = BODIES[name].SerializeToString() if name in BODIES else b""
    metadata = [("x-api-key", server.secrets[caller])] if caller else []
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        make = channel.stream_stream if streams else channel.unary_stream
        call = make(path)(iter([body]) if streams else body, metadata=metadata, timeout=5)
        try:
            next(iter(call), None)
            call.cancel()
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("path", "streams", "allowed"), list(rpcs()))
def test_an_rpc_is_open_to_its_scope_only(server, path, streams, allowed, caller):
    code = code_of(server, path, streams, caller)
    if caller in allowed:
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED)
        assert code == grpc.StatusCode.OK or SERVICE not in path
    elif not allowed:  # there is none: `operate` may read so
        assert code in (
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
    else:
        assert code == REFUSALS[bool(caller)]


def graphql(server, caller, query):
    return ask(server, caller, "POST", "/graphql", json={"query": query})


def test_the_table_of_this_test_has_every_graphql_field_there_is(server):
    found = graphql(
        server, "recommend", "{__schema{queryType{fields{name}} mutationType{name} subscriptionType{name}}}"
    )
    schema = found.json()["data"]["__schema"]
    assert {field["name"] for field in schema["queryType"]["fields"]} == set(FIELDS)
    assert schema["mutationType"] is schema["subscriptionType"] is None


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("field", list(FIELDS))
def test_a_graphql_field_is_open_to_its_scope_only(server, field, caller):
    answer = graphql(server, caller, "{" + FIELDS[field] + "}")
    if caller == "recommend":
        assert answer.json()["data"][field]
    else:
        assert answer.status_code == refusal(caller)


def test_a_web_socket_is_refused(server):
    head = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "x" * 22 + "==", "Sec-WebSocket-Protocol": "graphql-transport-ws"}  # fmt: skip
    assert server.client.get("/graphql", headers=head).status_code in (401, 403)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """A server on loopback that has no keys."""
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea")])
    with running(tmp_path_factory.mktemp("laptop"), recommender) as found:
        yield found


ELSEWHERE = [{"Origin": "https://shop.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1.example"},
             {"Host": "shop.example:8080"}, {"Host": "localhost.example"}, {"Host": "[bad"}]  # fmt: skip
HERE = [{}, {"Origin": "http://localhost:3000"}, {"Host": "shop.localhost"}, {"Host": "[::1]:8080"}, {"Host": "x"}]


@pytest.mark.parametrize("headers", [*ELSEWHERE, *HERE])
@pytest.mark.parametrize(("method", "path", "body"), [
    ("POST", "/v1/events", EVENTS["privacy"]), ("GET", "/v1/users/ann", None), ("POST", "/v1/recommend", {}),
    ("POST", "/graphql", {"query": "{popular{fallback}}"}), ("GET", "/v1/rules", None),
])  # fmt: skip
def test_without_keys_a_web_page_of_another_site_may_do_nothing(laptop, method, path, body, headers):
    if path == "/v1/recommend" and "Host" in headers and headers in ELSEWHERE:
        headers = headers | {"Origin": f"http://{headers['Host']}"}  # as browsers send with every POST
    before = laptop.log.end()
    status = laptop.client.request(method, path, json=body, headers=headers).status_code
    assert status == (403 if headers not in HERE else 202 if path == "/v1/events" else 200)
    assert (laptop.log.end() != before) == (status == 202)


def test_with_a_key_it_does_not_matter_where_a_request_comes_from(server):
    head = {"Origin": "https://shop.example", "Host": "shop.example", "X-API-Key": server.secrets["recommend"]}
    assert server.client.post("/v1/recommend", json={}, headers=head).status_code == 200
