"""A query parameter that a route does not have is refused, with a guess; pages take any."""

import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import shop_events


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


@pytest.mark.parametrize(
    ("method", "url", "field", "message"),
    [
        ("GET", "/v1/popular?cout=3", "cout", "there is no such parameter; did you mean count? There are count,"),
        ("POST", "/v1/events?partail=true", "partail", "there is no such parameter; did you mean partial?"),
        ("PUT", "/v1/rules?author=ann&notes=x", "notes", "there is no such parameter; did you mean note?"),
        ("GET", "/v1/popular?count=300", "count", "must be less than or equal to 200"),
    ],
)
def test_a_parameter_that_does_nothing_is_refused(server, method, url, field, message):
    body = {"json": [{"type": "view", "user": "ann", "item": "tea"}]} if method != "GET" else {}
    answer = server.client.request(method, url, **body)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize("url", ["/?utm_source=mail", "/healthz?x=1", "/v1/popular?count=3&lang=de", "/docs?x=1"])
def test_what_is_there_and_what_pages_take_is_answered(server, url):
    assert server.client.get(url).status_code == 200
