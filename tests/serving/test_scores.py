"""Scores of an answer are on one scale: positive, finite, falling, and multiplied where a boost acts."""

import math

import numpy as np
import orjson
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, product, shop_events
from helpers.vectors import vector_index
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Kind
from schemas.ids import hash_id
from serving.http.rules_api import trial
from serving.proto import headrace_pb2
from serving.rendering.answer_bytes import answer_json, answer_message
from serving.request.requests import STRATEGIES, RecommendRequest
from state.rows import keys
from state.rows.vector_rows import encode_vector

NAMES = [f"i{n}" for n in range(30)]


@pytest.fixture(scope="module")
def shop():
    rng = np.random.default_rng(3)
    kinds = [Kind.VIEW] * 6 + [Kind.ADD_TO_CART, Kind.PURCHASE, Kind.DISLIKE]
    events = []
    for n in range(8):
        for k in range(25):
            at = NOW - (n % 3) * DAY - (25 - k) * 60_000
            events.append(Event(f"u{n}", NAMES[int(rng.integers(20))], at, kinds[int(rng.integers(9))]))
    events += [Event("loyal", "i1", NOW - days * DAY, Kind.PURCHASE) for days in (60, 40, 20, 19, 18)]
    products = [
        product(name, name, brand=f"b{n % 4}", category=f"c{n % 3}", price=1.0 + n) for n, name in enumerate(NAMES)
    ]
    shop, store = recommender_of(events, products)
    shop.set_index(vector_index({name: rng.normal(size=2) for name in NAMES}))
    for user in ("u1", "u2", "loyal"):
        store.rows[keys.vector(keys.prefix("g1", 0), "a1", hash_id(user))] = encode_vector(np.array([1, 0.4], "f4"))
    return shop


requests = st.builds(
    RecommendRequest, user=st.sampled_from([None, "u1", "u2", "loyal", "new"]),
    items=st.lists(st.sampled_from(NAMES), max_size=3), strategy=st.sampled_from(STRATEGIES), count=st.integers(1, 35),
    diversity=st.sampled_from([0, 0, 0.3, 0.9]), diversity_method=st.sampled_from(["mmr", "dpp", "calibrated"]),
    explore=st.integers(0, 3), seed=st.just(1), repeat=st.sampled_from(["allow", "demote", "exclude", "new_first"]),
    filters=st.sampled_from([None, None, {"brands": ["b1"]}, {"max_price": 12}]),
)  # fmt: skip
rules = st.lists(
    st.sampled_from([
        {"action": "boost", "where": "brand == 'b1'", "factor": 1000}, {"action": "cap", "by": "brand", "most": 1},
        {"action": "boost", "where": "price > 9", "factor": 0.001}, {"action": "pin", "items": ["i7"], "position": 3},
        {"action": "promote", "where": "category == 'c2'", "positions": [1, 4]},
        {"action": "cap", "by": "category", "most": 1, "first": 2},
    ]), max_size=3,
)  # fmt: skip


def check(answer):
    """Check an answer's scores, the same in every wire format; return them."""
    scores = [one.score for one in answer.items]
    assert all(math.isfinite(score) and score > 0 for score in scores)
    assert scores == sorted(scores, reverse=True)
    answer.rules_version = 0  # a trial's is no number of a message
    message = headrace_pb2.Answer.FromString(answer_message(answer))
    assert [one.score for one in message.items] == scores
    assert [one["score"] for one in orjson.loads(answer_json(answer))["items"]] == scores
    return scores


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=4), rules)
def test_scores_fall_whatever_made_the_list(shop, asked, some):
    book = trial({"rules": [{"id": f"r{n}", **one} for n, one in enumerate(some)]})
    for answer in shop.recommend(asked, NOW, book):
        scores = check(answer)
        if not any(one["action"] == "boost" for one in some):
            assert all(score <= 1 for score in scores)


def test_lists_for_everybody_and_from_memory_are_on_the_same_scale(shop):
    asked = RecommendRequest(user="u1", count=20)
    for answer in (
        shop.similar_items("i1", 20, NOW), shop.popular("all", "", 20, NOW), shop.popular("brand", "b1", 9, NOW),
        shop.from_memory(asked, NOW),
    ):  # fmt: skip
        assert 0 < check(answer)[0] <= 1


@pytest.mark.parametrize("strategy", ["popular", "session", "similar", "bought_together", "content"])
@pytest.mark.parametrize("explain", [False, True])
def test_a_boost_multiplies_the_scores_of_a_list(shop, strategy, explain):
    asked = {"items": ["i1"], "strategy": strategy, "repeat": "exclude", "count": 40, "explain": explain}

    def listed(factor):
        book = trial({"rules": [{"id": "r", "action": "boost", "where": "brand == 'b1'", "factor": factor}]})
        (answer,) = shop.recommend([RecommendRequest(**asked)], NOW, book)
        return {one.item: (one.score, tuple(one.rules)) for one in answer.items}

    plain = {one.item: one.score for one in shop.recommend([RecommendRequest(**asked)], NOW)[0].items}
    for factor in (0.5, 1.0, 1.02, 2.0):
        boosted = listed(factor)
        assert boosted.keys() == plain.keys()
        for item, (score, moved_by) in boosted.items():
            assert score == pytest.approx(plain[item] * (factor if moved_by else 1), rel=1e-9)


def test_pins_have_the_score_of_their_place(shop):
    book = trial({"rules": [{"id": "r", "action": "pin", "items": ["i29", "i28"], "position": 2}]})
    plain = shop.recommend([RecommendRequest(strategy="popular", count=4)], NOW)[0].items
    (answer,) = shop.recommend([RecommendRequest(strategy="popular", count=4)], NOW, book)
    assert items(answer)[1:3] == ["i29", "i28"]
    assert [one.score for one in answer.items] == [plain[0].score] * 3 + [plain[1].score]


def test_an_erased_or_disliked_shop_has_no_scores_below_zero():
    events = [Event("v", "tea", NOW - 9), *(Event(f"w{n}", "tea", NOW - 5, Kind.DISLIKE) for n in range(9))]
    shop, _ = recommender_of(events, [product("tea", "Tea"), product("cup", "Cup")])
    for asked in (
        {},
        {"strategy": "popular"},
        {"strategy": "trending"},
        {"filters": {"where": "not under(brand, 'x')"}},
    ):
        check(ask(shop, **asked))


def test_home_begins_with_what_is_new_to_the_visitor_and_ends_with_what_was_seen():
    seen = [Event("ann", "tea", NOW - 9000), Event("ann", "cup", NOW - 8000), Event("ann", "tea", NOW - 7000)]
    shop, _ = recommender_of([*shop_events(), *seen])
    first = items(ask(shop, user="ann", count=3))
    assert not {"tea", "cup"} & set(first)
    everything = ask(shop, user="ann", count=50)
    assert items(everything)[-2:] == ["tea", "cup"]  # the latest first
    assert [one.reason.code for one in everything.items][-2:] == ["seen_before"] * 2
    assert items(ask(shop, user="ann", count=3, repeat="allow"))[0] in {"tea", "cup"}
    assert not {"tea", "cup"} & set(items(ask(shop, user="ann", count=50, repeat="exclude")))


def test_home_begins_with_what_a_customer_buys_again():
    buys = [Event("eve", "tea", NOW - days * DAY, Kind.PURCHASE) for days in (60, 50, 40, 30, 20)]
    shop, _ = recommender_of([*shop_events(), *buys])
    best = ask(shop, user="eve", count=3).items[0]
    assert (best.item, best.reason.code, best.reason.args) == ("tea", "buy_again", {"interval_days": "10"})


def test_fallback_names_where_most_of_the_items_come_from():
    pair = [Event("v", "tea", NOW - DAY), Event("v", "cup", NOW - DAY + 1000)]
    crowd = [Event(f"w{n}", f"other{n}", NOW - DAY) for n in range(9)]
    shop, _ = recommender_of([*pair, *crowd, Event("ann", "tea", NOW - 5000)])
    assert ask(shop, user="ann", count=1).fallback == "personalised"
    many = ask(shop, user="ann", count=8)
    assert [one.source for one in many.items].count("popular") >= 6
    assert (many.items[0].item, many.fallback) == ("cup", "popular")
