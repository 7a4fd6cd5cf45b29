"""The explorer in a real Chromium, over a real server. The pictures in the docs are made here."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from helpers.up import wait_for
from playwright.sync_api import expect, sync_playwright

from serving.http.explorer_api import Explorer

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
"""The pictures of the docs; written anew with UPDATE_PICTURES=1."""
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 40"><rect x="12" y="8" width="28" height="26" rx="6" '
    'fill="#5a9c6b"/><path d="M40 14h6a6 6 0 0 1 0 12h-6" fill="none" stroke="#5a9c6b" stroke-width="4"/></svg>'
)
PRODUCTS = [
    product(
        "tea", "Green tea", brand="Acme", category="drinks/tea", price=4.0, image_url="http://pictures.invalid/t.png"
    ),
    product("cup", "Cup", brand="Globex", category="kitchen", price=8.0),
    product("old", "Old kettle", brand="Acme", category="kitchen", price=30.0),
    *(product(f"other{n}", f"Other {n}", brand="Initech", category="misc", price=float(n)) for n in range(10)),
]


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no chromium: `make packages` installs it"
    with sync_playwright() as started:
        running_browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running_browser
        running_browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), PRODUCTS)
    with running(tmp_path_factory.mktemp("explorer"), recommender) as found:
        yield found


@pytest.fixture
def page(browser, server):
    """A page whose requests and errors are watched: nothing may go to another host but for pictures."""
    opened = browser.new_page(viewport={"width": 1200, "height": 1000})
    foreign, errors = [], []
    opened.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "data:")) else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.route("http://pictures.invalid/*", lambda r: r.fulfill(content_type="image/svg+xml", body=PICTURE))
    yield opened
    opened.close()
    assert {url for url in foreign if "pictures.invalid" not in url} == set()
    assert errors == []


def picture(page, name):
    shot = page.screenshot(full_page=True)
    if os.environ.get("UPDATE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / name).write_bytes(shot)


def show(page, server, user="ann", **fields):
    server.client.post("/v1/recommend", json={"user": user})
    page.goto(server.url)
    page.wait_for_selector("#before li")
    page.fill("#user", user)
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.click("text=Show")
    page.wait_for_selector("#ask[aria-busy=false]")


def titles(page, which):
    return page.locator(f"#{which} > li > button").all_inner_texts()


@pytest.mark.browser
def test_a_user_s_events_answers_reasons_and_contributions_are_shown(page, server):
    show(page, server)
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history")).to_contain_text("Green tea")
    assert page.locator("#history img").get_attribute("src") == "http://pictures.invalid/t.png"
    expect(page.locator("#likes")).to_contain_text("likes")
    assert "Cup" in titles(page, "before")
    expect(page.locator("#before")).to_contain_text("because you looked at Green tea")
    assert page.locator("#before .bar").count() > 0
    page.wait_for_selector("#live_chart canvas")
    picture(page, "explorer.png")


@pytest.mark.browser
def test_what_if_shows_before_and_after_side_by_side(page, server):
    show(page, server, book="rules:\n- {id: no-globex, action: exclude, where: brand == 'Globex'}")
    assert "Cup" in titles(page, "before")
    assert "Cup" not in titles(page, "after")
    expect(page.locator("#after_rules")).to_contain_text("no-globex (exclude)")
    show(page, server, book="", where="brand == 'Initech'")
    assert titles(page, "after")
    assert all(title.startswith("Other") for title in titles(page, "after"))
    show(page, server, where="", add="other3")
    assert titles(page, "after") != titles(page, "before")
    picture(page, "what-if.png")


@pytest.mark.browser
def test_mistakes_are_told_and_who_needs_a_key_is_told_its_scope(page, server, monkeypatch):
    page.goto(server.url)
    page.wait_for_selector("#before li")
    page.fill("#where", "colour == 1")
    page.click("text=Show")
    expect(page.locator("#message")).to_contain_text("'colour' is not known")
    page.fill("#book", "rules: [5]")
    page.click("text=Show")
    expect(page.locator("#message")).to_contain_text("line 1, rule 1: is a number")
    page.fill("#book", "rules: []")
    monkeypatch.setattr(server.guard, "is_open", False)  # as it is as soon as there are keys
    page.click("#put")
    expect(page.locator("#message")).to_contain_text("needs an API key with scope rules")


BOOK = "rules:\n- id: no-globex\n  action: exclude\n  where: brand == 'Globex'\n"


@pytest.fixture
def follow(server):
    """Have the server use the book that was put, as its follower does for a process."""
    return lambda version: wait_for(lambda: server.client.get("/v1/rules").json()["version"] == version)


@pytest.mark.browser
def test_a_book_is_edited_from_the_live_one_reviewed_and_put_with_the_version_it_was_made_from(page, server, follow):
    show(page, server)
    expect(page.locator("#book_state")).to_contain_text("no book is live yet")
    page.fill("#book", BOOK)
    page.click("#put")
    expect(page.locator("#review")).to_be_visible()
    expect(page.locator("#diff ins")).to_contain_text("+ - id: no-globex")
    expect(page.locator("#sample tr")).not_to_have_count(0)
    expect(page.locator("#sample")).to_contain_text("ann")
    page.click("#cancel")
    assert server.client.get("/v1/rules").json()["version"] == 0
    page.click("#put")
    page.fill("#author", "kim")
    page.click("#confirm")
    expect(page.locator("#message")).to_contain_text("rules version 1 is live")
    follow(1)
    assert server.client.get("/v1/rules/history").json()["versions"][0]["author"] == "kim"

    page.goto("about:blank")
    show(page, server)
    assert page.input_value("#book") == BOOK
    expect(page.locator("#book_state")).to_contain_text("this is the live book, version 1")
    page.click("#put")
    expect(page.locator("#message")).to_contain_text("nothing to put")
    page.fill("#book", BOOK + "- {id: few, action: min_stock, least: 1}\n")
    headers = {"Content-Type": "application/yaml"}
    other = BOOK.replace("no-globex", "other")
    assert server.client.put("/v1/rules?author=bob", content=other, headers=headers).status_code == 201
    follow(2)
    page.click("#put")
    expect(page.locator("#review_message")).to_contain_text("The live book is version 2; yours was made from 1")
    expect(page.locator("#confirm")).to_be_disabled()
    page.click("#cancel")
    page.click("#reload")
    expect(page.locator("#book")).to_have_value(other)
    page.fill("#book", "rules: []")
    page.click("#put")
    expect(page.locator("#review_message")).to_contain_text("This book is empty")
    third = other.replace("other", "third")
    assert server.client.put("/v1/rules?author=bob", content=third, headers=headers).status_code == 201
    page.click("#confirm")  # somebody was faster than the one who thought about it
    expect(page.locator("#review_message")).to_contain_text("this one was made from 2")
    follow(3)
    page.click("#cancel")
    page.click("#reload")
    page.fill("#book", "rules: []")
    page.click("#put")
    page.click("#confirm")
    expect(page.locator("#message")).to_contain_text("rules version 4 is live")
    follow(4)


@pytest.mark.browser
def test_an_item_has_a_page_with_neighbours_and_a_chart(page, server):
    show(page, server)
    page.locator("#before button", has_text="Cup").first.click()
    expect(page.locator("#item_title")).to_have_text("Cup")
    expect(page.locator("#neighbours")).to_contain_text("Green tea")
    expect(page.locator("#item_chart canvas")).to_have_count(1)
    expect(page.locator("#n_items")).to_have_text("13")
    page.wait_for_selector("#live_chart canvas")


def test_users_are_those_of_whom_something_is_known():
    """Who was only named, in an erasure say, is not listed."""
    explorer = Explorer(recommender_of(shop_events(), PRODUCTS)[0])
    for user in ("ann", "nobody", "bob", "ann"):
        explorer.note_user(user)
    assert explorer.users() == ["ann", "bob"]


@pytest.mark.browser
def test_it_is_readable_on_a_phone_and_reachable_by_keyboard(browser, server):
    phone = browser.new_page(viewport={"width": 360, "height": 740})
    phone.goto(server.url)
    phone.wait_for_selector("#before li")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    reached = set()
    for _ in range(40):
        phone.keyboard.press("Tab")
        reached.add(phone.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"user", "placement", "strategy", "count", "add", "where", "diversity", "book", "put", "link"} <= reached
    fields = "[...document.querySelectorAll('input:not([type=hidden]),select,textarea,button')]"
    unnamed = phone.evaluate(fields + ".filter(e => !e.labels?.length && !e.innerText).length")
    assert unnamed == 0
    picture(phone, "phone.png")
    phone.close()
