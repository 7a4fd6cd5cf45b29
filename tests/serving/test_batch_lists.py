"""Lists made for a batch at once are those the sources and the rules make one by one."""

import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import recommender_of
from helpers.serving_rows import DAY, NOW, product
from helpers.trees import some_trees
from hypothesis import given
from hypothesis import strategies as st

import serving.engine.pipeline
from headrace.settings import Settings
from schemas.events import Kind
from schemas.ids import hash_id
from serving.engine.recommender import Recommender
from serving.http.rules_api import trial
from serving.ranking.list_kernels import FEW, put_in_order
from serving.rendering.lists import LazyItems
from serving.request.requests import RecommendRequest
from serving.scoring.scorer import Scorer
from serving.scoring.sessions import padded_sessions
from serving.scoring.tree_ensemble import NO_FOREST
from state.store.contract import MemoryStore

N_ITEMS, N_USERS = 60, 12
KINDS = [Kind.VIEW] * 8 + [Kind.PURCHASE, Kind.DISLIKE]

user = st.sampled_from([*(f"u{n}" for n in range(N_USERS)), "never seen"])
item = st.sampled_from([f"i{n}" for n in range(N_ITEMS)])
requests = st.builds(
    RecommendRequest, user=st.none() | user, items=st.lists(item, max_size=3), count=st.integers(1, 6),
    exclude=st.lists(item, max_size=4), exclude_purchased=st.booleans(), exclude_out_of_stock=st.booleans(),
    repeat=st.sampled_from(["allow", "demote", "exclude"]), placement=st.sampled_from([None, "search", "email"]),
    strategy=st.sampled_from(["hybrid", "hybrid", "session", "collaborative", "popular"]),
    lang=st.sampled_from(["en", "de"]), country=st.sampled_from([None, None, None, "DE"]),
    filters=st.sampled_from([None, None, {"min_price": 20}, {"category": "c1"}]),
    fields=st.sampled_from([None, None, ["price", "stock"], ["brand", "attr.size", "title"]]),
)  # fmt: skip
where = st.sampled_from(["brand == 'b1'", "price > 30", "category == 'c2'"])
rule = st.one_of(
    st.fixed_dictionaries({"action": st.just("boost"), "where": where, "factor": st.sampled_from([0.3, 2.0, 5.0])}),
    st.fixed_dictionaries({"action": st.just("exclude"), "where": where}),
    st.fixed_dictionaries(
        {
            "action": st.just("cap"), "by": st.sampled_from(["category", "brand"]), "most": st.integers(1, 3),
            "first": st.integers(1, 6), "placements": st.sampled_from([[], ["search"]]),
        }
    ),
    st.fixed_dictionaries({"action": st.just("pin"), "items": st.just(["i5"]), "placements": st.just(["email"])}),
)  # fmt: skip


@pytest.fixture(scope="module")
def shop():
    rng = np.random.default_rng(5)
    events = []
    for n in range(N_USERS):
        for k in range(25):
            at = NOW - (DAY if n % 2 else 0) - (25 - k) * 60_000
            events.append(Event(f"u{n}", f"i{int(rng.integers(N_ITEMS))}", at, KINDS[int(rng.integers(len(KINDS)))]))
    products = [
        product(f"i{n}", f"Item {n}", brand=f"b{n % 4}", category=f"c{n % 3}", price=float(n), stock=n % 7)
        for n in range(N_ITEMS)
    ]
    return recommender_of(events, products)[0]


@given(st.lists(requests, min_size=1, max_size=6), st.lists(rule, max_size=3))
def test_quick_lists_are_those_of_the_sources(shop, asked, rules):
    book = trial({"rules": [{"id": f"r{n}", **one} for n, one in enumerate(rules)]})
    quick = shop.recommend(asked, NOW, book)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving.engine.pipeline, "suits_batch", lambda *_: False)
        slow = shop.recommend(asked, NOW, book)
    for one, other in zip(quick, slow, strict=True):
        assert [(x.item, x.source, x.reason, list(x.rules)) for x in one.items] == [
            (x.item, x.source, x.reason, list(x.rules)) for x in other.items
        ]
        assert [getattr(x, "fields", None) for x in one.items] == [getattr(x, "fields", None) for x in other.items]
        assert np.allclose([x.score for x in one.items], [x.score for x in other.items], rtol=1e-12)
        assert (one.fallback, one.strategy, one.next_cursor) == (other.fallback, other.strategy, other.next_cursor)
    for answer in quick:
        assert answer.items.sources() == [(one.item, one.source) for one in answer.items]
        if isinstance(answer.items, LazyItems):  # its bytes were written by a kernel; `alone` writes them in Python
            assert answer.items.to_json() == answer.items.alone.to_json()
            assert answer.items.to_message() == answer.items.alone.to_message()
            assert answer.items.sources() == answer.items.alone.sources()


@pytest.mark.parametrize("forest", [NO_FOREST, some_trees()], ids=["by likelihood", "by trees"])
def test_a_batch_is_scored_as_each_request_alone_whatever_rows_were_at_hand(forest):
    # In a chain of pairs the neighbours of an item's neighbours are not its own: their rows are read after scoring.
    pairs = [(f"v{k}-{n}", k) for k in range(40) for n in range(3 + k % 4)]
    events = [Event(v, f"x{k + at}", NOW - DAY + 60_000 * k + 1000 * at) for v, k in pairs for at in (0, 1)]
    warm, store = recommender_of(events)
    warm.shop.scorer = Scorer(forest=forest)
    sessions = [np.array([hash_id(f"x{k}")], np.uint64) for k in (5, 6, 20, 33)] + [np.zeros(0, np.uint64)]
    modes = [0, 1, 2, 0, 0]
    for at_hand in ([], [0], [2, 3]):
        fresh = Recommender(store, Settings(server_cached_items=1000, show_unknown_items=True), "g1").shop
        fresh.refresh(NOW)
        fresh.scorer = Scorer(forest=forest)
        for b in at_hand:
            fresh.score(padded_sessions([sessions[b]]), 0, NOW)
        together = fresh.score(padded_sessions(sessions), np.array(modes), NOW)
        for b, (session, mode) in enumerate(zip(sessions, modes, strict=True)):
            for _ in range(2):  # the second time with all rows at hand
                alone = warm.shop.score(padded_sessions([session]), mode, NOW)
            for name, column in alone._asdict().items():
                assert np.array_equal(getattr(together, name)[b], column[0]), (b, name)
        assert hash_id("x8") in together.item[1].tolist()


def test_equally_likely_items_stand_in_the_order_of_their_ids():
    # Three items that were each seen with `a` once, by one visitor each, in an order that is none of their ids'.
    pairs = [(f"v{k}", item) for k, other in enumerate(("c", "d", "b")) for item in ("a", other)]
    events = [Event(v, item, NOW - DAY + 1000 * (item != "a"), Kind.VIEW) for v, item in pairs]
    shop, _ = recommender_of(events, [product(item, item) for item in "abcd"])
    for strategy in ("session", "hybrid"):
        (answer,) = shop.recommend([RecommendRequest(items=["a"], count=3, strategy=strategy, repeat="exclude")], NOW)
        assert len({one.score for one in answer.items}) == 1
        assert [one.item for one in answer.items] == ["b", "c", "d"]


def test_what_is_said_is_kept_only_up_to_a_bound(shop, monkeypatch):
    asked = [RecommendRequest(items=[f"i{n}"], count=4) for n in range(N_ITEMS)]
    before = [list(answer.items) for answer in shop.recommend(asked, NOW)]
    monkeypatch.setattr("serving.rendering.reason_cache.MAX_RENDERED", 16)
    monkeypatch.setattr("serving.rendering.item_heads.MAX_KEPT", 10)
    small = Recommender(shop.shop.store, shop.shop.settings, shop.generation)
    small.refresh(NOW)
    for n, one in enumerate(asked):
        (answer,) = small.recommend([one], NOW)
        assert list(answer.items) == before[n]
        assert answer.items.to_json() == answer.items.alone.to_json()
        assert len(small.shop.reasons.rendered.reason_keys) <= 16 + 4


def test_an_empty_shop_with_rules_answers():
    shop = Recommender(MemoryStore(), Settings(server_cached_items=1000), "g1")
    shop.refresh(NOW)
    rules = [{"id": "b", "action": "boost", "where": "price > 1", "factor": 2}]
    rules.append({"id": "c", "action": "cap", "by": "brand", "most": 1})
    for _ in range(2):
        (answer,) = shop.recommend([RecommendRequest(items=["x"], count=3)], NOW, trial({"rules": rules}))
        assert (answer.fallback, list(answer.items)) == ("no_data", [])


def test_most_lists_are_made_the_quick_way(shop, monkeypatch):
    made = []
    plain = serving.engine.pipeline.batch_lists
    monkeypatch.setattr(serving.engine.pipeline, "batch_lists", lambda *args: made.append(plain(*args)) or made[-1])
    asked = [RecommendRequest(user=f"u{n}", items=["i1"], count=3) for n in range(N_USERS)]
    shop.recommend(asked, NOW)
    assert len(made[0]) == N_USERS
    shop.recommend([RecommendRequest(count=3), RecommendRequest(user="never seen", count=3)], NOW)
    assert len(made[1]) == 2


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]) | st.floats(0, 2), max_size=FEW + 20))
def test_candidates_whose_worth_rules_change_stand_in_its_order_and_equal_ones_as_they_were(worth):
    candidates = np.arange(len(worth))
    put_in_order(np.array(worth, np.float64), candidates)
    assert candidates.tolist() == sorted(range(len(worth)), key=lambda at: -worth[at])


def test_many_candidates_are_put_in_order_like_few():
    worth = np.random.default_rng(1).integers(0, 9, 10 * FEW).astype(np.float64)
    candidates = np.arange(len(worth))
    put_in_order(worth.copy(), candidates)
    assert candidates.tolist() == np.argsort(-worth, kind="stable").tolist()
