"""Each reason is given while its evidence is there, and vanishes with it; a few events are enough to tell."""

from pathlib import Path

import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, recommender_of
from helpers.serving_rows import DAY, NOW, product
from helpers.vectors import vector_index

from schemas.events import Kind
from schemas.ids import hash_id
from serving.http.rules_api import trial
from serving.request.reasons import REASONS, reasons_table
from serving.request.requests import RecommendRequest
from state.rows import keys
from state.rows.vector_rows import encode_vector

AGO = NOW - 2 * DAY
PRODUCTS = [product(name, name.title()) for name in ("tea", "cup", "mate", "sofa")]
NOTHING = "nothing"
AVAILABLE, NEW = ("available", {}), ("new_arrival", {})
TOGETHER = [Event("v", "tea", AGO), Event("v", "cup", AGO + 1000)]
TASTES = [product("tea", "Tea", brand="Acme", price=4.0), product("cup", "Cup", brand="Other", price=4.1),
          product("mate", "Mate", brand="Acme", price=90.0)]  # fmt: skip


def reasons(events, products=PRODUCTS, book=None, with_vector=False, **request):
    """Return the reason of each item of an answer, as (code, arguments)."""
    shop, store = recommender_of([Event("nobody", NOTHING, NOW - 90 * DAY), *events], products)
    if with_vector:
        shop.set_index(vector_index({"tea": (1, 0), "cup": (0.9, 0.1), "mate": (0.8, 0.2), "sofa": (-1, 0.1)}))
        store.rows[keys.vector(keys.prefix("g1", 0), "a1", hash_id("ann"))] = encode_vector(
            np.array([1, 0.05], np.float32)
        )
    (answer,) = shop.recommend([RecommendRequest(**{"count": 6, **request})], NOW, trial(book) if book else None)
    return {one.item: (one.reason.code, one.reason.args) for one in answer.items if one.item != NOTHING}


TEA = {"item": "tea"}


@pytest.mark.parametrize(
    ("kind", "stars", "code"),
    [(Kind.PURCHASE, 1, "because_bought"), (Kind.ADD_TO_CART, 1, "because_carted"),
     (Kind.WISHLIST, 1, "because_interested"), (Kind.SHARE, 1, "because_interested"),
     (Kind.RATING, 3, "because_interested"), (Kind.VIEW, 1, "because_viewed"), (Kind.CLICK, 1, "because_viewed")],
)  # fmt: skip
def test_what_the_visitor_did_with_an_item_is_said_of_what_goes_with_it(kind, stars, code):
    own = [Event("ann", "tea", NOW - 5000, kind, value=stars)]
    for asked in ({"strategy": "session"}, {"strategy": "session", "explain": True}):  # in a batch, and alone
        assert reasons([*TOGETHER, *own], user="ann", **asked)["cup"] == (code, TEA)
        assert reasons(TOGETHER, user="ann", **asked)["cup"][0] == "popular_in"
        assert reasons(own, user="ann", **asked).get("cup", ("",))[0] != code
    context = {"items": ["tea"], "strategy": "session"}
    assert reasons(TOGETHER, **context)["cup"] == ("seen_together", TEA)
    assert reasons([*TOGETHER, *own], user="ann", **context)["cup"] == (code, TEA)


def test_the_strongest_thing_that_was_done_is_said():
    viewed = [Event("ann", "tea", NOW - 5000 + k, kind) for k, kind in enumerate((Kind.PURCHASE, Kind.VIEW))]
    assert reasons([*TOGETHER, *viewed], user="ann", strategy="session")["cup"] == ("because_bought", TEA)


def test_items_of_orders_were_bought_together_and_others_seen_together():
    order = [Event("v", item, AGO + k, Kind.PURCHASE) for k, item in enumerate(("tea", "cup"))]
    together = {"items": ["tea"], "strategy": "bought_together"}
    assert reasons(order, **together)["cup"] == ("bought_together", TEA)
    assert reasons(order[1:], **together)["cup"][0] == "popular_in"
    for kind in (Kind.VIEW, Kind.ADD_TO_CART, Kind.WISHLIST):  # what is shared may be this
        assert reasons([*order, Event("w", "tea", AGO, kind)], **together)["cup"] == ("seen_together", TEA)
    assert reasons(TOGETHER, **together)["cup"] == ("seen_together", TEA)
    assert reasons(TOGETHER[1:], **together)["cup"][0] == "popular_in"


def test_items_two_steps_apart_are_related():
    chain = [Event(f"v{n}", item, AGO + n) for n in range(6) for item in (("tea", "cup") if n % 2 else ("cup", "mate"))]
    crowd = [Event(f"w{n % 50}", f"other{n % 7}", AGO + 7 * n) for n in range(300)]
    asked = {"items": ["tea"], "strategy": "session"}
    assert reasons([*chain, *crowd], **asked)["mate"] == ("related_to", TEA)
    own = Event("ann", "tea", NOW - 5000)
    assert reasons([*chain, *crowd, own], user="ann", strategy="session")["mate"] == ("because_viewed", TEA)
    without = [event for event in chain if event.user not in ("v1", "v3", "v5")]
    assert reasons([*without, *crowd], **asked).get("mate", ("",))[0] != "related_to"


def test_similar_items_share_an_attribute_or_a_direction():
    drinks = [product("tea", "Tea", category="drinks"), product("mate", "Mate", category="drinks")]
    content = {"items": ["tea"], "strategy": "content"}
    assert reasons(TOGETHER, drinks, **content)["mate"] == ("similar_to", TEA)
    assert reasons(TOGETHER, [drinks[0], product("mate", "Mate", category="food")], **content)["mate"] == AVAILABLE
    similar = {"items": ["tea"], "strategy": "similar"}
    assert reasons([], with_vector=True, **similar)["cup"] == ("similar_to", TEA)
    assert reasons([], with_vector=True, **similar)["sofa"] == NEW
    assert reasons([], **similar)["cup"] == AVAILABLE


def test_what_was_bought_once_was_bought_before_and_only_what_was_bought_twice_has_an_interval():
    twice = [Event("ann", "tea", NOW - days * DAY, Kind.PURCHASE) for days in (60, 40)]
    again = {"user": "ann", "strategy": "buy_again"}
    assert reasons(twice, **again)["tea"] == ("buy_again", {"interval_days": "20"})
    assert reasons(twice[1:], **again)["tea"] == ("bought_before", {})
    same_day = [twice[1], Event("ann", "tea", NOW - 40 * DAY + 9, Kind.PURCHASE)]
    assert reasons(same_day, **again)["tea"] == ("bought_before", {})
    viewed = [Event("ann", "tea", NOW - 40 * DAY), Event("v", "tea", NOW - 40 * DAY)]
    assert reasons(viewed, **again)["tea"] == ("seen_before", {})


@pytest.mark.parametrize(
    ("kind", "code"), [(Kind.VIEW, "seen_before"), (Kind.ADD_TO_CART, "carted_before"),
                       (Kind.WISHLIST, "seen_before"), (Kind.PURCHASE, "bought_before")],
)  # fmt: skip
def test_an_item_that_comes_again_says_what_the_visitor_did_with_it(kind, code):
    events = [*TOGETHER, Event("ann", "tea", NOW - 5000, kind)]
    for asked in ({"repeat": "new_first"}, {"repeat": "allow", "strategy": "session"}):
        assert reasons(events, user="ann", **asked)["tea"] == (code, {})
        assert reasons(events[:2], user="ann", **asked)["tea"][0] == "popular_in"


def test_a_taste_is_said_with_the_brand_category_or_price_it_is_of():
    asked = {"user": "ann", "strategy": "collaborative", "with_vector": True, "exclude": ["tea"], "repeat": "allow"}
    found = reasons([Event("ann", "tea", AGO)], TASTES, **asked)
    assert found["mate"] == ("matches_affinity", {"kind": "brand", "value": "Acme"})
    assert found["cup"] == ("matches_taste", {})
    views = [Event("ann", "tea", AGO + k, price=4.0) for k in range(3)]
    assert reasons(views, TASTES, **asked)["cup"] == ("matches_price", {"value": "4.1"})
    assert reasons(views[:2], TASTES, **asked)["cup"] == ("matches_taste", {})
    found = reasons([], TASTES, user="bob", strategy="collaborative", with_vector=True)
    assert found == {"tea": AVAILABLE, "cup": AVAILABLE, "mate": NEW}


def test_one_event_makes_an_item_popular_and_five_of_today_a_trend():
    today = [Event(f"v{n}", "tea", NOW - 9000 + n) for n in range(6)]
    for asked in ({}, {"explain": True}, {"strategy": "trending"}):
        assert reasons(today, **asked)["tea"] == ("trending_in", {"scope": "the whole shop"})
        assert reasons(today[:2], **asked)["tea"] == ("popular_in", {"scope": "the whole shop"})
        assert reasons([], **asked) == {"tea": AVAILABLE, "cup": AVAILABLE, "mate": AVAILABLE, "sofa": NEW}
    old = [Event(f"v{n}", "tea", NOW - (1 + n) * DAY) for n in range(12)]
    assert reasons(old)["tea"][0] == "popular_in"


def test_what_nobody_touched_is_not_called_popular():
    assert reasons([Event("v", "tea", AGO)], TASTES, filters={"brands": ["Acme"]}) == {
        "tea": ("popular_in", {"scope": "the whole shop"}), "mate": ("available", {}),
    }  # fmt: skip
    disliked = [Event("v", "mate", AGO), *(Event(f"v{n}", "mate", AGO + 1, Kind.DISLIKE) for n in range(9))]
    assert reasons(disliked, strategy="popular")["mate"] == AVAILABLE


def test_only_the_newer_half_of_the_shop_is_new():
    found = reasons([], strategy="new", exclude=[NOTHING])
    assert {item: code for item, (code, _) in found.items()} == {
        "sofa": "new_arrival", "mate": "available", "cup": "available", "tea": "available"
    }  # fmt: skip


def test_promotions_name_their_rule_and_explored_items_are_unknown_to_the_visitor():
    book = {"rules": [{"id": "hero", "action": "pin", "items": ["sofa"], "position": 1}]}
    assert reasons(TOGETHER, book=book)["sofa"] == ("promoted", {"rule": "hero"})
    assert reasons(TOGETHER)["sofa"] == NEW
    for seed in range(8):
        own = [Event("ann", "tea", AGO)]
        found = reasons(own, strategy="session", user="ann", explore=2, seed=seed)
        assert found.get("tea", ("",))[0] != "exploration"
    assert "exploration" in {code for code, _ in reasons(TOGETHER, count=3, explore=2, seed=1).values()}
    assert "exploration" not in {code for code, _ in reasons(TOGETHER, count=3, explore=0, seed=1).values()}


def test_the_last_list_in_memory_is_said_to_be_that():
    shop, store = recommender_of(TOGETHER, PRODUCTS)
    assert {one.reason.code for one in ask(shop, user="new", count=2).items} == {"popular_in"}
    store.away = True
    assert {one.reason.code for one in ask(shop, user="new").items} == {"fallback"}


def test_the_documentation_has_the_table_of_codes():
    page = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text()
    assert "\n".join(reasons_table()) in page
    assert all(set(one.texts) == {"en", "de"} for one in REASONS.values())
