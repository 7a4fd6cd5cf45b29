"""Books are tried beside the loop, on a view of their own: others do not wait, and nothing is left behind."""

import asyncio
import threading
import time

import httpx
import pytest
from helpers.books import PRODUCTS, plant, rule
from helpers.fold_oracle import Event
from helpers.recommenders import items, recommender_of
from helpers.running_server import running
from helpers.serving_rows import DAY, NOW, shop_events

from schemas.ids import hash_ids
from serving.engine.recommender import BadRequest
from serving.engine.trials import TooMany, Trials
from serving.http import rules_api
from serving.http.rules_api import parse_at, preview, trial
from serving.request.budget import UNBOUNDED, Budget, TooMuch
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.book_errors import BadBook
from serving.rules.book_store import to_book
from serving.rules.lint import lint, refuse_failing

HEAVY = " or ".join(f"contains(brand, 'x{n}') and number(attr.a{n}) * price > {n}" for n in range(15))
HOSTILE = {
    "rules": [
        {"id": f"r{n}", "action": "promote", "where": f"{HEAVY} or price > {n}", "positions": [1 + n % 200]}
        for n in range(1000)
    ]
}


@pytest.fixture
def shop():
    recommender, _ = recommender_of(shop_events(), PRODUCTS)
    recommender.shop.rules = Compiled(to_book({"rules": [rule("boost", where="price > 5", factor=2)]}), 3)
    return recommender


def kept(recommender):
    """Everything the live recommender remembers."""
    shop = recommender.shop
    return (
        len(shop.selections._kept), len(shop.selections._matching), len(shop.selections._factors),
        len(shop.items.slots), shop.items.slots.round_no, len(shop._top_lists), len(shop.reasons._reasons),
        len(shop.reasons.rendered.reason_keys),
        len(recommender._live.cache._kept), len(shop.rules._sets), shop.scratch.answer,
        list(shop.catalogue._attributes._columns), shop.popular.trend.tobytes(), len(shop.heads._rows),
    )  # fmt: skip


def test_a_preview_leaves_nothing_behind(shop):
    shop.recommend([RecommendRequest(user="ann")], NOW)
    before = kept(shop)
    book = trial({
        "rules": [rule("exclude", where="attr.colour == 'red'", when="hour >= 0")],
        "placements": {"home": {"cache_s": 3600}},
    })  # fmt: skip
    asked = RecommendRequest(user="bob", filters={"category": "kitchen"}, strategy="popular", country="DE", count=3)
    for at in (NOW, NOW + 400 * DAY, NOW - 400 * DAY):
        preview(shop.frozen(UNBOUNDED), book, asked, at)
    assert kept(shop) == before


def test_a_preview_at_a_date_has_the_trends_and_schedules_of_that_date():
    events = [Event(f"v{n}", "steady", NOW - n * DAY // 4) for n in range(160)]
    events += [Event(f"w{n}", "burst", NOW - n * 1000) for n in range(20)]
    recommender, _ = recommender_of(sorted(events, key=lambda event: event.ts_ms))
    later = NOW + 30 * DAY
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((later - DAY) // 1000))
    book = {"rules": [rule("exclude", where="True", start=start)]}
    asked = RecommendRequest(strategy="trending", count=5)
    now, then = (preview(recommender.frozen(UNBOUNDED), trial(book), asked, at) for at in (NOW, later))
    codes = [[one.reason.code for one in found["before"].items] for found in (now, then)]
    assert "trending_in" in codes[0]
    assert "trending_in" not in codes[1]
    assert items(now["after"]) == items(now["before"])
    assert not items(then["after"])


@pytest.mark.parametrize("at", ["1999-12-31T00:00Z", "2101-01-01T00:00Z", "0001-01-01T00:00+14:00", "9999-12-31", "x"])
def test_a_date_that_is_none_of_this_century_is_refused(at):
    with pytest.raises(BadRequest) as error:
        parse_at(at)
    assert error.value.field == "at"


def test_a_frozen_view_stays_as_it_was_while_the_shop_goes_on(shop):
    frozen, before = shop.frozen(UNBOUNDED), shop.recommend([RecommendRequest(user="ann", count=13)], NOW)[0]
    catalogue = shop.shop.catalogue
    hashes = catalogue.hashes().copy()
    catalogue.take(list(catalogue.ids), hashes, [{"gone": True, "brand": "New"}] * len(hashes))
    ids = [f"late{n}" for n in range(5000)]
    catalogue.take(ids, hash_ids(ids), [{}] * len(ids))
    assert set(items(shop.recommend([RecommendRequest(user="ann", count=13)], NOW)[0])) <= set(ids)
    after = frozen.recommend([RecommendRequest(user="ann", count=13)], NOW)[0]
    assert items(after) == items(before)
    assert len(frozen.shop.catalogue) == len(hashes)
    assert (frozen.shop.catalogue.rows_of(hash_ids(ids)) == -1).all()


def test_a_book_is_bounded_in_time_and_memory(shop):
    book = to_book(HOSTILE)
    for seconds, n_bytes in ((0.01, 1 << 30), (60, 5 * len(shop.shop.catalogue))):

        def budget(seconds=seconds, n_bytes=n_bytes):
            return Budget(seconds, n_bytes, time.perf_counter)

        with pytest.raises(TooMuch):
            lint(book, shop.shop.catalogue, NOW, budget())
        with pytest.raises(TooMuch):
            refuse_failing(book, shop.shop.catalogue, budget())
        with pytest.raises(TooMuch):
            preview(shop.frozen(budget()), Compiled(book, -1), RecommendRequest(user="ann"), NOW)


def test_only_so_many_are_tried_at_once_and_a_place_is_free_when_its_thread_is():
    async def several():
        trials, go_on = Trials(2, 10, 1 << 20), threading.Event()
        waiting = [asyncio.ensure_future(trials.run(lambda _: go_on.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            await trials.run(lambda _: go_on.wait)
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(TooMany):  # its thread still works
            await trials.run(lambda _: go_on.wait)
        go_on.set()
        await waiting[1]
        while trials._under_way:
            await asyncio.sleep(0.001)
        return await trials.run(lambda _: lambda: "done")

    assert asyncio.run(several()) == "done"


def test_a_rule_that_fails_over_the_live_catalogue_is_refused_by_its_name(shop, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"), "price > 7")
    book = to_book(
        {"rules": [rule("exclude", where="price > 8"), {**rule("exclude", where="price > 7"), "id": "seven"}]}
    )
    with pytest.raises(BadBook) as error:
        refuse_failing(book, shop.shop.catalogue)
    assert str(error.value) == "rule seven: cannot be evaluated: RuntimeError: planted"
    assert ("seven", "error") in {(found["rule"], found["level"]) for found in lint(book, shop.shop.catalogue, NOW)}


def test_answers_go_on_while_hostile_books_are_tried(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(rules_api, "Trials", lambda: Trials(2, 3.0, 64 << 20))
    with running(tmp_path, shop) as server:
        monkeypatch.setattr(server.guard, "admit", lambda *_: None)

        async def flood():
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                trying = [
                    asyncio.ensure_future(client.post(path, json=body))
                    for path, body in (
                        ("/v1/rules/preview", {"book": HOSTILE, "request": {"user": "ann", "count": 200}}),
                        ("/v1/rules/lint", HOSTILE), ("/v1/rules/lint", HOSTILE), ("/v1/rules/lint", HOSTILE),
                    )
                ]  # fmt: skip
                slowest, answers = 0.0, []
                while not all(one.done() for one in trying):
                    started = time.perf_counter()
                    answers.append(await client.post("/v1/recommend", json={"user": "ann", "count": 3}))
                    slowest = max(slowest, time.perf_counter() - started)
                return [one.result() for one in trying], answers, slowest

        tried, answers, slowest = asyncio.run(flood())
        assert {one.status_code for one in answers} == {200}
        assert 429 in {one.status_code for one in tried}
        assert {one.status_code for one in tried} <= {200, 422, 429}
        assert all(
            "to try it takes more than" in one.json()["error"]["message"] for one in tried if one.status_code == 422
        )
        assert slowest < 2.5
        assert server.client.post("/v1/rules/lint", json={"rules": []}).status_code == 200
