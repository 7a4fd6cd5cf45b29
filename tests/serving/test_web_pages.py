"""Which web pages may call a server: those of the origins in its settings, from a browser's point of view."""

import httpx
import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from headrace.settings import Settings
from serving.auth.api_keys import make_key, write_keys

SHOP, STRANGER = "https://shop.example", "https://stranger.example"
JSON = {"Content-Type": "application/json"}


def shop():
    return recommender_of(shop_events(), [product("tea", "Tea")])[0]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A server whose settings name one shop, with a key."""
    folder = tmp_path_factory.mktemp("named")
    with running(
        folder, shop(), require_key=True, settings=Settings(cors_origins=f"{SHOP}, https://other.example")
    ) as server:
        key, entry = make_key("storefront", ("recommend", "events"))
        write_keys(server.keys, [entry])
        server.guard.follow()
        yield server.url, key


def ask(url, origin, **headers):
    return httpx.post(f"{url}/v1/recommend", json={"user": "ann", "count": 1}, headers={"Origin": origin, **headers})


def preflight(url, origin):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return httpx.options(f"{url}/v1/recommend", headers=asked)


def test_a_page_of_a_named_origin_may_ask_without_a_key_whether_it_may_call(named):
    answer = preflight(named[0], SHOP)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    refused = preflight(named[0], STRANGER)
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_a_browser_shows_answers_to_pages_of_named_origins_only(named):
    url, key = named
    answer = ask(url, SHOP, Authorization=f"Bearer {key}")
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert ask(url, SHOP).status_code == 401
    assert "Access-Control-Allow-Origin" not in ask(url, STRANGER, Authorization=f"Bearer {key}").headers


def test_an_open_server_lets_in_named_origins_only(tmp_path):
    with running(tmp_path, shop(), settings=Settings(cors_origins=SHOP)) as server:
        assert ask(server.url, SHOP).status_code == 200
        assert ask(server.url, STRANGER).status_code == 403


def test_without_the_setting_no_page_of_another_site_gets_in_or_writes(tmp_path):
    with running(tmp_path, shop()) as server:
        assert "Access-Control-Allow-Origin" not in preflight(server.url, SHOP).headers
        assert ask(server.url, SHOP).status_code == 403
        form = httpx.post(f"{server.url}/v1/events", content=b'{"type": "view", "user": "u", "item": "tea"}')
        assert form.status_code == 415  # a form of any site may send text/plain without asking
        assert httpx.get(f"{server.url}/v1/popular").status_code == 200
