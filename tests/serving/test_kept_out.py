"""What a visitor bought, disliked, sent back or rated low stays out; what left the cart, while the session runs."""

import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, product, shop_events

from schemas.events import Kind
from serving.request.requests import STRATEGIES
from serving.rules.acting import Compiled
from serving.rules.book_store import to_book

PRODUCTS = [product(item, item.title()) for item in ("sofa", "tea", "cup")]


def around_the_sofa():
    """Twenty visitors look at the sofa with everything that `zoe` looks at, and buy it."""
    events = shop_events()
    for n in range(20):
        at = NOW - 2 * DAY + n * 60_000
        events += [Event(f"w{n}", f"i{n % 10}", at), Event(f"w{n}", "sofa", at + 1000)]
        events += [Event(f"w{n}", "sofa", at + 2000, Kind.PURCHASE), Event(f"w{n}", f"i{(n + 1) % 10}", at + 3000)]
    return events


def zoe(*opinions):
    """Opinions of forty days ago, then 60 views of other items until now."""
    events = [Event("zoe", "sofa", NOW - 40 * DAY + n, kind, value=value) for n, (kind, value) in enumerate(opinions)]
    return events + [Event("zoe", f"i{n % 10}", NOW - 60_000 + 1000 * n) for n in range(59)]


def shown(recommender, **request):
    """All pages of a list."""
    found, cursor = [], None
    while True:
        answer = ask(recommender, user="zoe", count=5, **request, **({"cursor": cursor} if cursor else {}))
        found += items(answer)
        cursor = answer.next_cursor
        if not cursor or not answer.items:
            return found


def lists_of(recommender, **request):
    for strategy in STRATEGIES:
        for context in ({}, {"items": ["i1", "i2"]}):
            yield strategy, shown(recommender, strategy=strategy, **context, **request)


def test_what_was_bought_is_in_no_list_whatever_came_since():
    recommender, _ = recommender_of(around_the_sofa() + zoe((Kind.PURCHASE, 1)), PRODUCTS)
    assert any("sofa" in found for _, found in lists_of(recommender))
    for strategy, found in lists_of(recommender, exclude_purchased=True):
        assert "sofa" not in found, strategy
    by_setting, _ = recommender_of(around_the_sofa() + zoe((Kind.PURCHASE, 1)), PRODUCTS, exclude_purchased=True)
    assert all("sofa" not in found for _, found in lists_of(by_setting))


def test_what_a_heavy_buyer_bought_is_in_no_list():
    often = [Event("zoe", f"x{n}", NOW - 30 * DAY + n, Kind.PURCHASE) for n in range(150)]
    recommender, _ = recommender_of(around_the_sofa() + zoe((Kind.PURCHASE, 1))[:1] + often, PRODUCTS)
    bought = {"sofa", *(f"x{n}" for n in range(150))}
    assert bought & set(shown(recommender, strategy="popular"))
    for strategy, found in lists_of(recommender, exclude_purchased=True):
        assert not bought & set(found), strategy


@pytest.mark.parametrize("opinion", [(Kind.DISLIKE, 1), (Kind.RETURN, 1), (Kind.RATING, 1), (Kind.RATING, 2)])
def test_what_was_refused_is_in_no_list_whatever_came_since(opinion):
    recommender, _ = recommender_of(around_the_sofa() + zoe(opinion), PRODUCTS)
    for strategy, found in lists_of(recommender):
        assert "sofa" not in found, strategy
    assert "sofa" in shown(recommender, strategy="popular") + items(ask(recommender, count=20, strategy="popular"))


@pytest.mark.parametrize("taken_up", [(Kind.PURCHASE, 1), (Kind.ADD_TO_CART, 1), (Kind.RATING, 5)])
def test_what_is_taken_up_again_is_shown_again(taken_up):
    recommender, _ = recommender_of(around_the_sofa() + zoe((Kind.DISLIKE, 1), taken_up), PRODUCTS)
    assert any("sofa" in found for _, found in lists_of(recommender))


def test_a_low_rating_is_no_reason_to_want_it_again():
    events = [*around_the_sofa(), Event("zoe", "sofa", NOW - 1000, Kind.RATING, value=1)]
    recommender, _ = recommender_of(events, PRODUCTS)
    assert all("sofa" not in found for _, found in lists_of(recommender))


def test_what_was_taken_out_of_the_cart_stays_out_while_the_session_runs():
    def sofa_and(*kinds, ago):
        own = [Event("zoe", "sofa", NOW - ago + 1000 * n, kind) for n, kind in enumerate(kinds)]
        recommender, _ = recommender_of([*around_the_sofa(), *own], PRODUCTS)
        return any("sofa" in found for _, found in lists_of(recommender))

    assert not sofa_and(Kind.ADD_TO_CART, Kind.REMOVE_FROM_CART, ago=60_000)
    assert sofa_and(Kind.ADD_TO_CART, Kind.REMOVE_FROM_CART, ago=DAY)
    assert sofa_and(Kind.REMOVE_FROM_CART, Kind.ADD_TO_CART, ago=60_000)


def test_a_pin_does_not_show_what_the_visitor_refuses():
    rule = {"id": "sofa-first", "action": "pin", "items": ["sofa"], "position": 1}
    recommender, _ = recommender_of(around_the_sofa() + zoe((Kind.DISLIKE, 1)), PRODUCTS)
    recommender.shop.rules = Compiled(to_book({"rules": [rule]}), 1)
    assert items(ask(recommender, user="ann", count=3))[0] == "sofa"
    assert "sofa" not in items(ask(recommender, user="zoe", count=20))
