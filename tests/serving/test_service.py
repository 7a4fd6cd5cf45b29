import time
from dataclasses import replace

import numpy as np
import pytest
from helpers.fold_oracle import Event, batch_of
from helpers.recommenders import Switchable, ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, SETTINGS, product, shop_events

from flows.fold.lane import Lane
from headrace.settings import Settings
from schemas.events import Decoded, ProductChange
from schemas.ids import hash_id
from serving.engine.recommender import Recommender
from serving.request.requests import RecommendRequest
from serving.retrieval.build import build_index
from serving.retrieval.vector_index import VectorIndex
from state.anchor import Anchor
from state.rows import keys
from state.store.contract import MemoryStore


def test_a_visitor_in_a_session_gets_what_came_next_for_others_and_why():
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea"), product("cup", "Cup")])
    answer = ask(recommender, user="ann", count=3, repeat="exclude")
    assert items(answer)[0] == "cup"
    assert "tea" not in items(answer)
    assert answer.items[0].reason.code == "because_viewed"
    assert answer.items[0].reason.text == "because you looked at Green tea"
    assert answer.fallback == "personalised"
    german = ask(recommender, user="ann", count=1, repeat="exclude", lang="de")
    assert german.items[0].reason.text == "weil Sie Green tea angesehen haben"


def test_an_unknown_user_an_anonymous_one_and_an_empty_shop_are_answered():
    recommender, _ = recommender_of(shop_events())
    unknown = ask(recommender, user="nobody", count=2)
    assert unknown.fallback == "popular"
    assert set(items(unknown)) <= {"tea", "cup", "old"}
    assert len(unknown.items) == 2
    anonymous = ask(recommender, items=["tea"], count=1, repeat="exclude")
    assert (items(anonymous), anonymous.fallback) == (["cup"], "session")
    empty = Recommender(MemoryStore(), Settings(server_cached_items=1000), "g1")
    empty.refresh(NOW)
    answer = ask(empty, user="nobody", items=["tea"])
    assert (answer.items, answer.fallback) == ([], "no_data")


def test_a_batch_that_was_begun_is_answered_by_the_generation_taken_over_meanwhile():
    recommender, _ = recommender_of(shop_events())
    batch = recommender.batch([RecommendRequest(user="ann", count=3)], NOW)
    batch.read()
    recommender.replace_snapshot(recommender_of([])[0].shop)
    (answer,) = batch.answer()
    assert (items(answer), answer.fallback) == ([], "no_data")


def test_a_store_that_goes_away_after_a_batch_was_begun_leaves_it_the_last_known_list():
    recommender, store = recommender_of(shop_events())
    batch = recommender.batch([RecommendRequest(user="ann", count=1)], NOW)
    batch.read()
    store.away = True
    (answer,) = batch.answer()
    assert answer.fallback == "last_known_popular"
    assert items(answer)


def prefetch(recommender, store, monkeypatch):
    """Have rows read ahead; return of which items."""
    asked = []
    monkeypatch.setattr(store, "read", lambda wanted: asked.extend(wanted) or Switchable.read(store, wanted))
    n = recommender.shop.prefetch(NOW)
    items = {keys.hash_of(key) for key in asked if b"}i:" in key}
    assert len(items) == n
    asked.clear()
    return items, asked


def test_rows_read_ahead_are_not_read_for_answers(monkeypatch):
    monkeypatch.setattr("serving.snapshot.snapshot.READ_AHEAD", 2)
    recommender, store = recommender_of(shop_events())
    expected = items(ask(recommender, user="ann", count=3))
    fresh = Recommender(store, Settings(server_cached_items=1000), "g1")
    fresh.refresh(NOW)
    read, asked = prefetch(fresh, store, monkeypatch)
    assert read == set(fresh.shop.catalogue.hashes().tolist())
    assert hash_id("tea") in read
    assert items(ask(fresh, user="ann", count=3)) == expected
    assert asked
    assert not [key for key in asked if b"}i:" in key]
    assert fresh.shop.scan_more(10, NOW) == 0
    fresh.shop.catalogue.take(["late"], np.array([hash_id("late")], np.uint64), [{}])
    assert fresh.shop.scan_more(10, NOW) == 1
    assert fresh.shop.scan_more(10, NOW) == 0


def test_where_rows_have_no_room_those_with_the_longest_factors_are_read_ahead(monkeypatch):
    hashes = np.arange(1, 1_041, dtype=np.uint64)
    lengths = np.random.default_rng(1).permutation(1_040)
    factors, one = lengths[:, None].astype(np.float32), np.eye(1, dtype=np.float32)
    recommender, store = recommender_of([])
    recommender.shop.catalogue.take([f"i{n}" for n in hashes], hashes, [{}] * len(hashes))
    recommender.set_index(VectorIndex(Anchor("a", [], hashes, factors, one, 1.0, np.ones(32)), build_index(factors)[0]))
    read, _ = prefetch(recommender, store, monkeypatch)
    assert read == set(hashes[lengths >= 40].tolist())


def test_what_is_gone_excluded_bought_or_out_of_stock_is_not_shown():
    products = [product("cup", "Cup", stock=0), product("other1", "O", stock=3), ProductChange(0, "other2", NOW, None)]
    recommender, _ = recommender_of(shop_events(), products)
    shown = items(ask(recommender, user="ann", count=50, exclude=["other3"]))
    assert not {"cup", "other2", "other3"} & set(shown)
    assert "other1" in shown
    assert "cup" in items(ask(recommender, user="ann", count=50, exclude_out_of_stock=False))
    assert "tea" in items(ask(recommender, user="bob", count=50))
    assert "tea" not in items(ask(recommender, user="bob", count=50, exclude_purchased=True))


def test_requests_answered_together_get_what_each_gets_alone():
    recommender, _ = recommender_of(shop_events())
    requests = [RecommendRequest(user=user, count=9) for user in ("ann", "bob", "v3", "nobody")]
    together = recommender.recommend(requests, NOW)
    alone = [recommender.recommend([request], NOW)[0] for request in requests]
    assert [one.items for one in together] == [one.items for one in alone]


def test_reading_leaves_no_trace_in_the_store():
    recommender, store = recommender_of(shop_events())
    before = dict(store.rows)
    ask(recommender, user="nobody", items=["tea", "unknown"])
    recommender.similar_items("unknown", 5, NOW)
    recommender.popular("all", "", 5, NOW)
    assert store.rows == before


def test_a_store_out_of_reach_costs_no_answer_and_is_tried_again_later():
    recommender, store = recommender_of(shop_events())
    store.away = True
    answer = ask(recommender, user="ann", count=2)
    assert answer.fallback == "last_known_popular"
    assert len(answer.items) == 2
    store.away = False
    assert ask(recommender, user="ann").fallback == "last_known_popular"
    time.sleep(1.05)
    (later,) = recommender.recommend([RecommendRequest(user="ann")], NOW)
    assert later.fallback == "personalised"


def test_similar_items_are_those_that_occur_together():
    recommender, _ = recommender_of(shop_events())
    answer = recommender.similar_items("tea", 3, NOW)
    assert answer.items[0].item == "cup"
    assert answer.items[0].reason.text == "seen together with tea"


@pytest.mark.parametrize(("scope", "name", "found"), [("all", "", True), ("category", "none", False)])
def test_popular_lists_a_scope(scope, name, found):
    recommender, _ = recommender_of(shop_events())
    answer = recommender.popular(scope, name, 1, NOW)
    assert answer.fallback == ("popular" if found else "no_data")
    assert len(answer.items) == int(found)


def on_lanes(n_lanes, events, products=()):
    """Return a recommender on rows that so many lanes have folded."""
    store = MemoryStore()
    for n in range(n_lanes):
        lane = Lane(replace(SETTINGS, n_lanes=n_lanes), store, "g1", n)
        lane.open()
        decoded, raw = batch_of(events)
        changes = lane.apply(Decoded(decoded.interactions, list(products)), raw)
        store.commit(keys.prefix("g1", n), changes.expected, changes.new, changes.rows)
    recommender = Recommender(store, Settings(server_cached_items=1000, n_lanes=n_lanes), "g1")
    recommender.refresh(NOW)
    return recommender


@pytest.mark.parametrize("n_lanes", [1, 2])
def test_a_popular_list_of_a_category_has_the_items_below_it(n_lanes):
    places = {"car": "toys/cars", "bus": "toys/cars/big", "doll": "toys", "gift": "toys-to-go", "pan": "kitchen"}
    events = [Event(f"v{n}", item, NOW - 60_000) for k, item in enumerate(places) for n in range(k + 1)]
    shop = on_lanes(n_lanes, events, [product(item, item, category=at) for item, at in places.items()])
    toys = ["doll", "bus", "car"]
    lists = {name: items(shop.popular("category", name, 10, NOW)) for name in ("toys", "toys/", "toys/cars", "toy")}
    assert lists == {"toys": toys, "toys/": toys, "toys/cars": ["bus", "car"], "toy": []}
    answer = ask(shop, strategy="popular", count=3, filters={"category": "toys"})
    assert [(one.item, one.reason.args) for one in answer.items] == [(item, {"scope": "toys"}) for item in toys]


def test_two_lanes_answer_like_one():
    one, _ = recommender_of(shop_events())
    two = on_lanes(2, shop_events())
    for user in ("ann", "bob", "nobody"):
        a, b = ask(one, user=user, count=5), ask(two, user=user, count=5)
        assert items(a) == items(b)
        assert np.allclose([i.score for i in a.items], [i.score for i in b.items], rtol=1e-4)


def filtered_shop():
    products = [
        product("tea", "Green tea", category="food/drinks", brand="a", price=4.0),
        product("cup", "Cup", category="kitchen", brand="b", price=9.0),
        *(product(f"other{n}", f"Other {n}", category="food/sweets", brand="a", price=float(n)) for n in range(10)),
        product("foodie", "A magazine", category="foods", brand="c"),
    ]
    return recommender_of(shop_events(), products)[0]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"category": "food"}, {"tea", *(f"other{n}" for n in range(10))}),
        ({"category": "food/drinks/"}, {"tea"}),
        ({"brands": ["b", "c"]}, {"cup", "foodie"}),
        ({"min_price": 4, "max_price": 5}, {"tea", "other4", "other5"}),
        ({"category": "food", "max_price": 0.5}, {"other0"}),
        ({"brands": ["nobody"]}, set()),
    ],
)
def test_a_filter_holds_for_every_source_and_still_fills_the_list(filters, wanted):
    recommender = filtered_shop()
    for request in ({"user": "ann"}, {"user": "nobody"}, {"items": ["cup"]}):
        answer = ask(recommender, count=20, filters=filters, **request)
        assert set(items(answer)) == wanted - set(request.get("items", ()))
    assert set(items(ask(recommender, user="ann", count=20, filters=filters, exclude=["tea"]))) == wanted - {"tea"}


def test_a_filter_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="min_price is above max_price"):
        RecommendRequest(filters={"min_price": 5, "max_price": 1})


def test_a_shop_that_has_products_and_one_event_fills_lists_with_its_newest_and_none_in_context():
    one_event = [Event("nobody", "p0", NOW - 90 * DAY)]
    shop, _ = recommender_of(one_event, [product(f"p{n}", f"Product {n}") for n in range(20)])
    answer = ask(shop, count=12)
    assert (items(answer), answer.fallback) == (["p0", *(f"p{n}" for n in range(19, 8, -1))], "new")
    for strategy in ("hybrid", "similar", "bought_together", "content", "session", "popular", "new"):
        for context in ([], ["p19"]):
            shown = items(ask(shop, count=19, items=context, strategy=strategy))
            assert len(set(shown)) == 19
            assert not set(shown) & set(context)


def test_content_goes_to_the_categories_beside_where_too_few_items_are_alike():
    categories = {"herb": "drinks/tea/herbal", "mint": "drinks/tea/herbal", "green": "drinks/tea/green",
                  "black": "drinks/tea", "beans": "drinks/coffee", "sugar": "food"}  # fmt: skip
    products = [product(name, name, category=one, price=4.0) for name, one in categories.items()]
    shop, _ = recommender_of([Event("nobody", "sugar", NOW - DAY)], products)
    found = ask(shop, items=["herb"], strategy="content", count=4)
    assert items(found)[0] == "mint"
    assert set(items(found)[1:3]) == {"green", "black"}
    assert [one.reason.code for one in found.items][:3] == ["similar_to"] * 3
    assert [one.reason.code for one in found.items][3] != "similar_to"
    assert items(ask(shop, items=["herb"], strategy="content", count=1)) == ["mint"]
