"""What callers may do is decided by the real server's keys, by every way in."""

import grpc
import pytest
from helpers.product import Product
from helpers.up import wait_for

from serving.proto import headrace_pb2


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A product with one key: of a storefront."""
    with Product(tmp_path_factory.mktemp("closed")) as product:
        product.secret = product.run("keys", "add", "shop", "--preset", "storefront")["key"]
        wait_for(lambda: product.client.post("/v1/recommend", json={}).status_code == 401)
        yield product


def over_rest(shop, headers):
    return shop.client.post("/v1/recommend", json={"count": 1}, headers=headers).status_code


def over_grpc(shop, headers):
    try:
        shop.stub.Recommend(
            headrace_pb2.RecommendRequest(count=1), metadata=[(n.lower(), v) for n, v in headers.items()]
        )
    except grpc.RpcError as error:
        return {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}[error.code()]
    return 200


def over_graphql(shop, headers):
    answer = shop.client.post("/graphql", json={"query": "{ recommend(count: 1) { fallback } }"}, headers=headers)
    return 200 if "errors" not in answer.json() and answer.status_code == 200 else 401


def of_an_event(shop, headers):
    event = {"type": "view", "user": "u", "item": "i"}
    return {202: 200}.get(code := shop.client.post("/v1/events", json=event, headers=headers).status_code, code)


@pytest.mark.redis
@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", [over_rest, over_grpc, over_graphql, of_an_event])
def test_a_server_with_keys_admits_callers_with_one(closed, way):
    assert way(closed, {}) == 401
    assert way(closed, {"X-Api-Key": "hr_nonsense"}) == 401
    assert way(closed, {"X-Api-Key": closed.secret}) == 200


@pytest.mark.redis
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_key_does_what_its_scopes_say(closed):
    headers = {"X-Api-Key": closed.secret}
    assert closed.client.put("/v1/rules?author=x", json={"rules": []}, headers=headers).status_code == 403
    assert closed.client.get("/metrics", headers=headers).status_code == 403
    assert closed.client.get("/metrics").status_code == 401
    assert closed.client.get("/healthz").status_code == 200
