"""Strategies, their reasons, and that the reasons are true: without its evidence an item loses what it owed to it."""

import gc

import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, product, shop_events
from helpers.vectors import vector_index

from schemas.events import Kind
from schemas.ids import hash_id
from serving.candidates.pool import Pool
from serving.candidates.strategies import SOURCES
from serving.request.requests import STRATEGIES
from state.rows import keys
from state.rows.vector_rows import encode_vector

PRODUCTS = [
    product("tea", "Tea", brand="Acme", category="drinks", price=4.0),
    product("cup", "Cup", brand="Globex", category="kitchen", price=8.0),
    product("mate", "Mate", brand="Acme", category="drinks", price=5.0),
    product("sofa", "Sofa", brand="Initech", category="living", price=900.0),
]


@pytest.fixture(scope="module")
def shop():
    buys = [Event("eve", "tea", NOW - days * DAY, Kind.PURCHASE) for days in (60, 40, 20)]
    buys += [Event("eve", "cup", NOW - 10 * DAY, Kind.PURCHASE)]
    recommender, store = recommender_of(shop_events() + buys, PRODUCTS)
    recommender.set_index(vector_index({"tea": (1, 0), "cup": (0.9, 0.1), "mate": (0.8, 0.2), "sofa": (-1, 0.1)}))
    for user in ("ann", "eve"):
        store.rows[keys.vector(keys.prefix("g1", 0), "a1", hash_id(user))] = encode_vector(
            np.array([1, 0.05], np.float32)
        )
    return recommender


def test_every_strategy_has_sources_and_gives_full_lists(shop):
    assert set(SOURCES) == set(STRATEGIES)
    for strategy in STRATEGIES:
        answer = ask(shop, user="eve", items=["tea"], strategy=strategy, count=3)
        assert (answer.strategy, len(answer.items)) == (strategy, 3)
        assert len(set(items(answer))) == 3


def test_what_made_an_answer_goes_with_it(shop):
    def pools():
        return sum(type(one) is Pool for one in gc.get_objects())

    gc.collect()
    before = pools()
    gc.disable()
    try:
        for strategy in STRATEGIES:
            ask(shop, user="eve", items=["tea"], strategy=strategy, count=3)
        assert pools() == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("strategy", "request_", "first", "code", "args"),
    [
        ("bought_together", {"items": ["tea"]}, "cup", "seen_together", {"item": "tea"}),
        ("similar", {"items": ["tea"]}, "cup", "similar_to", {"item": "tea"}),
        ("content", {"items": ["tea"]}, "mate", "similar_to", {"item": "tea"}),
        ("buy_again", {"user": "eve"}, "tea", "buy_again", {"interval_days": "20"}),
        ("popular", {}, "tea", "trending_in", {"scope": "the whole shop"}),
        ("session", {"items": ["tea"], "repeat": "exclude"}, "cup", "seen_together", {"item": "tea"}),
        ("collaborative", {"user": "ann", "exclude": ["cup"]}, "mate", "matches_affinity",
         {"kind": "brand", "value": "Acme"}),
    ],
)  # fmt: skip
def test_a_strategy_says_why(shop, strategy, request_, first, code, args):
    best = ask(shop, strategy=strategy, count=3, **request_).items[0]
    assert (best.item, best.reason.code, best.reason.args) == (first, code, args)


def test_new_is_what_the_shop_met_last_and_exploration_is_repeatable(shop):
    answer = ask(shop, strategy="new", count=2)
    assert {one.reason.code for one in answer.items} == {"new_arrival"}
    assert items(answer)[0] == shop.shop.catalogue.ids[-1]
    lists = [ask(shop, user="ann", count=3, explore=1, seed=5) for _ in range(2)]
    assert items(lists[0]) == items(lists[1])
    assert lists[0].items[-1].reason.code == "exploration"
    assert ask(shop, user="ann", count=3).items[-1].reason.code != "exploration"


def test_without_its_evidence_a_stated_reason_vanishes(shop):
    together = ask(shop, strategy="bought_together", items=["tea"], count=3)
    without = ask(shop, strategy="bought_together", items=["sofa"], count=3)
    cup = next(one for one in without.items if one.item == "cup")
    assert together.items[0].reason.args == {"item": "tea"}
    assert cup.reason.args != {"item": "tea"}
    seen = ask(shop, items=["tea", "sofa"], repeat="exclude", count=3, explain=True).items[0]
    assert (seen.item, seen.reason.code, seen.reason.args) == ("cup", "seen_together", {"item": "tea"})
    assert seen.contributions[0]["item"] == "tea"
    removed = next(one for one in ask(shop, items=["sofa"], repeat="exclude", count=9).items if one.item == "cup")
    assert removed.reason.args != {"item": "tea"}
    assert removed.source == "popular" or removed.score < seen.score * (1 - 0.9 * seen.contributions[0]["share"])


def test_contributions_are_what_would_be_lost(shop):
    whole = ask(shop, items=["tea", "sofa"], repeat="exclude", count=9, explain=True)
    cup = next(one for one in whole.items if one.item == "cup")
    alone = next(one for one in ask(shop, items=["sofa"], repeat="exclude", count=9).items if one.item == "cup")
    lost = 1 - alone.score / cup.score if alone.source != "popular" else 1
    assert cup.contributions[0]["share"] == pytest.approx(lost, abs=0.02)


def test_a_late_source_is_left_out_and_named(shop):
    answer = ask(shop, user="ann", count=9, deadline_ms=1e-6)
    assert "next_items" in answer.skipped_sources
    assert len(answer.items) == 9
    assert ask(shop, user="ann", count=9, deadline_ms=1e6).skipped_sources == []


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"where": "price > 5 and brand != 'Initech'"}, {"cup"}),
        ({"where": "under(category, 'drinks')"}, {"tea", "mate"}),
        ({"country": "DE", "where": "price > 0"}, {"tea", "cup", "mate", "sofa"}),
    ],
)
def test_filters_take_conditions(shop, filters, names):
    assert set(items(ask(shop, user="ann", count=20, filters=filters))) == names


def test_an_item_is_sold_only_where_it_says():
    goods = [product("tea", "Tea", attributes={"countries": "DE, AT"}), product("cup", "Cup")]
    shop, _ = recommender_of(shop_events(), goods)
    assert "tea" in items(ask(shop, count=20, filters={"country": "AT"}))
    assert "tea" not in items(ask(shop, count=20, filters={"country": "FR"}))
    assert "cup" in items(ask(shop, count=20, filters={"country": "FR"}))
