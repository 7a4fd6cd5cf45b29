"""Items that the catalogue does not have are shown until there is a catalogue."""

import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items
from helpers.recommenders import recommender_of as shop_of
from helpers.serving_rows import NOW, fold_into, product

from schemas.events import Change, ProductChange

EVENTS = [
    Event(f"u{n}", item, NOW - 9000 + 100 * n + k) for n in range(9) for k, item in enumerate(("tea", "cup", "pot"))
]
STRATEGIES = ("hybrid", "popular", "similar", "trending", "new", "content")


def recommender_of(*shop, show_unknown_items=False):
    return shop_of(*shop, show_unknown_items=show_unknown_items)


def shown(recommender, strategy):
    return set(items(ask(recommender, user="v", items=["tea"], strategy=strategy, count=20)))


def lists_after(*products, **settings):
    """Return the items of every strategy's list, all together."""
    recommender, _ = recommender_of(EVENTS, products, **settings)
    return set.union(*(shown(recommender, strategy) for strategy in STRATEGIES))


def test_without_a_catalogue_every_item_is_shown():
    assert lists_after() >= {"cup", "pot"}
    assert lists_after(ProductChange(0, "cup", NOW, {"stock": 3}, Change.MERGE)) >= {"cup", "pot"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_once_there_is_a_catalogue_only_its_items_are_shown(strategy):
    untitled = ProductChange(0, "pot", NOW, {"price": 3.0})
    recommender, _ = recommender_of(
        EVENTS, [product("cup", "Cup", price=3.0), product("mug", "Mug", price=3.0), untitled]
    )
    assert shown(recommender, strategy) <= {"cup", "mug"}
    assert "cup" in shown(recommender, "popular")


def test_a_setting_shows_all_of_them():
    assert lists_after(product("cup", "Cup"), show_unknown_items=True) >= {"cup", "pot"}


def test_lists_follow_when_titles_come_and_go():
    recommender, store = recommender_of(EVENTS)
    assert shown(recommender, "popular") >= {"cup", "pot"}
    steps = (
        ([product("cup", "Cup")], {"cup"}),
        ([ProductChange(0, "pot", NOW + 1, {"title": "Pot"}, Change.MERGE)], {"cup", "pot"}),
        ([ProductChange(0, "cup", NOW + 1, {"title": None}, Change.MERGE)], {"pot"}),
        ([ProductChange(0, "pot", NOW + 2, None, Change.REPLACE)], {"tea", "cup"}),  # the catalogue is empty again
    )
    for n, (changes, expected) in enumerate(steps):
        fold_into(store, [Event("w", "tea", NOW)], changes, first=100 + n)
        recommender.refresh(NOW)
        assert shown(recommender, "popular") - {"tea"} == expected - {"tea"}


def test_an_explained_answer_names_what_was_left_out():
    recommender, _ = recommender_of(EVENTS, [product("cup", "Cup")])
    (trace,) = ask(recommender, user="v", items=["tea"], explain=True).rules
    assert (trace.rule, trace.action, trace.effect) == ("catalogue", "none", "left out: without a title")
    assert "pot" in trace.items


def test_a_title_that_equals_the_id_is_a_title(tmp_path):
    recommender, _ = recommender_of(EVENTS, [product("cup", "cup")])
    assert shown(recommender, "popular") == {"cup"}
