"""The page at /docs in a real Chromium: it shows every operation and calls the server, and needs no other machine."""

import shutil

import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from playwright.sync_api import expect, sync_playwright

from serving.http.description.operations import OPERATIONS

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea", brand="Acme")])
    with running(tmp_path_factory.mktemp("docs"), recommender) as found:
        yield found


@pytest.fixture
def page(server):
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no chromium: `make packages` installs it"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 1000})
        foreign, errors = [], []
        opened.on(
            "request", lambda one: foreign.append(one.url) if not one.url.startswith((server.url, "data:")) else 0
        )
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{server.url}/docs")
        yield opened
        browser.close()
    assert (foreign, errors) == ([], [])


def test_the_page_shows_every_operation_and_sends_the_example_of_one(page):
    for operation in OPERATIONS.values():
        expect(page.locator(f"#operations-{operation.tag}-{operation.name}")).to_be_visible()
    one = page.locator("#operations-lists-recommend")
    one.locator(".opblock-summary").click()
    expect(one).to_contain_text("Needs an API key with the scope recommend")
    expect(one.locator(".opblock-section-request-body")).to_contain_text('"placement": "home"')
    one.get_by_role("button", name="Try it out").click()
    one.get_by_role("button", name="Execute").click()
    expect(one.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
    expect(one.locator(".live-responses-table")).to_contain_text('"request_id"')
