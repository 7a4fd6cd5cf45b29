import pytest
from helpers.books import PRODUCTS, put_book, rule, with_rules
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, fold_into, product, shop_events
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http.rules_api import preview, trial
from serving.request.budget import UNBOUNDED
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.book_errors import BadBook
from serving.rules.book_store import history, live_version, parse_book, read_book, to_book
from serving.rules.lint import lint, unmeasured
from serving.rules.model import Book
from state.store.contract import MemoryStore


@pytest.fixture(scope="module")
def shop():
    return recommender_of(shop_events(), PRODUCTS)[0]


def test_rules_that_leave_items_out_win_over_every_source(shop):
    assert {"tea", "cup", "old"} <= set(items(with_rules(shop)))
    assert not {"tea", "cup"} & set(items(with_rules(shop, rule("exclude", where="brand == 'Acme'"))))
    assert items(with_rules(shop, rule("include", where="brand == 'Globex'"))) == ["old"]
    assert "cup" not in items(with_rules(shop, rule("min_stock", least=5)))
    assert "other1" in items(with_rules(shop, rule("min_stock", least=5)))  # its stock is not counted
    assert "cup" not in items(with_rules(shop, rule("min_margin", least=0.2)))


def test_a_boost_moves_items_and_the_answer_says_so(shop):
    plain = items(with_rules(shop, repeat="exclude"))
    answer = with_rules(shop, rule("boost", where="brand == 'Globex'", factor=1000), repeat="exclude")
    assert items(answer).index("old") < plain.index("old")
    assert list(next(one for one in answer.items if one.item == "old").rules) == ["r"]
    assert [(trace.rule, trace.action, trace.items) for trace in answer.rules] == [("r", "boost", ["old"])]
    buried = items(with_rules(shop, rule("boost", where="brand == 'Acme'", factor=0.001), repeat="exclude"))
    assert buried.index("cup") > plain.index("cup")


def test_pins_and_promotions_have_their_places(shop):
    answer = with_rules(shop, rule("pin", items=["other7", "nothing", "old"], position=2))
    assert items(answer)[1] == "other7"
    assert items(answer)[3] == "old"
    assert answer.items[1].reason.code == "promoted"
    assert answer.items[1].reason.args == {"rule": "r"}
    assert [(trace.effect, trace.items) for trace in answer.rules][1] == ("may not be shown", ["nothing"])
    promoted = with_rules(shop, rule("promote", where="category == 'misc'", positions=[1, 4]), count=5)
    assert [one.reason.code == "promoted" for one in promoted.items] == [True, False, False, True, False]


def test_an_item_a_rule_brings_is_not_explored_once_more():
    unseen = [product(f"unseen{n}", f"Unseen {n}") for n in range(3)]
    recommender, _ = recommender_of(shop_events(), [*PRODUCTS, *unseen])
    for seed in range(10):
        answer = with_rules(recommender, rule("pin", items=["unseen1"]), count=5, explore=2, seed=seed)
        assert items(answer)[0] == "unseen1"
        assert [one.reason.code for one in answer.items[3:]] == ["exploration"] * 2
        assert len(set(items(answer))) == 5


def test_a_cap_bounds_what_is_alike_among_the_first(shop):
    answer = with_rules(shop, rule("cap", by="category", most=1, first=3))
    categories = [next(p.product["category"] for p in PRODUCTS if p.item == item) for item in items(answer)[:3]]
    assert len(set(categories)) == 3
    assert len(answer.items) == 13
    assert answer.rules[-1].action == "cap"
    # There are three categories: a fourth place cannot be filled without breaking the rule.
    assert len(with_rules(shop, rule("cap", by="category", most=1, first=4)).items) == 3


def test_when_where_time_place_priority_and_groups_decide_which_rules_act(shop):
    out = rule("exclude", where="brand == 'Globex'")

    def gone(at=NOW, request=None, **more):
        return "old" not in items(with_rules(shop, {**out, **more}, at=at, **(request or {})))

    assert gone()
    assert not gone(enabled=False)
    assert not gone(placements=["email"])
    assert gone(placements=["email"], request={"placement": "email", "count": 13})
    assert not gone(start="2100-01-01T00:00Z")
    assert not gone(end="2000-01-01T00:00Z")
    assert gone(start="2000-01-01T00:00Z", end="2100-01-01T00:00:00+01:00")
    assert not gone(when="country == 'DE'")
    assert gone(when="country == 'DE'", request={"country": "DE"})
    assert gone(when="new_user", request={"user": "nobody"})
    assert not gone(when="new_user")
    assert gone(when="likes('Acme')")
    assert not gone(when="likes('Initech')")
    pins = [
        {"id": "low", "action": "pin", "items": ["old"], "group": "g", "priority": 1},
        {"id": "high", "action": "pin", "items": ["cup"], "group": "g", "priority": 2},
    ]
    answer = with_rules(shop, *pins)
    assert items(answer)[0] == "cup"
    assert [trace.rule for trace in answer.rules] == ["high"]


def test_a_placement_brings_defaults_that_the_request_overrides(shop):
    places = {"corner": {"strategy": "new", "count": 3}}
    answer = with_rules(shop, placements=places, placement="corner", count=None)
    assert (answer.strategy, len(answer.items)) == ("new", 3)
    assert with_rules(shop, placements=places, placement="corner", strategy="popular", count=2).strategy == "popular"


names = st.sampled_from([f"other{n}" for n in range(10)] + ["tea", "cup", "old", "unknown"])
conditions = st.sampled_from(["brand == 'Acme'", "price > 5", "category == 'misc'", "stock < 10", "price < 0"])
some_rules = st.one_of(
    st.builds(lambda where: rule("exclude", where=where), conditions),
    st.builds(lambda where: rule("include", where=where), conditions),
    st.builds(lambda where, factor: rule("boost", where=where, factor=factor), conditions, st.floats(0.01, 100)),
    st.builds(lambda i, at: rule("pin", items=i, position=at),
              st.lists(names, min_size=1, max_size=3), st.integers(1, 15)),
    st.builds(lambda w, p: rule("promote", where=w, positions=p), conditions, st.lists(st.integers(1, 9), min_size=1)),
    st.builds(lambda by, most, first: rule("cap", by=by, most=most, first=first),
              st.sampled_from(["category", "brand"]), st.integers(1, 4), st.integers(1, 13)),
    st.builds(lambda least: rule("min_stock", least=least), st.integers(1, 20)),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(some_rules, max_size=5), st.integers(1, 13), st.sampled_from(["hybrid", "new", "popular", "similar"]),
       st.sampled_from([0.0, 0.5]))  # fmt: skip
def test_whatever_the_book_the_list_is_full_distinct_and_obeys(shop, rules, count, strategy, diversity):
    book = [{**one, "id": f"r{n}"} for n, one in enumerate(rules)]
    request = {"count": count, "strategy": strategy, "items": ["tea"], "repeat": "allow", "diversity": diversity}
    answer = with_rules(shop, *book, **request)
    shown = items(answer)
    assert len(set(shown)) == len(shown) <= count
    facts = {p.item: p.product for p in PRODUCTS}
    left_out = {item for item in facts for one in book if _left_out(one, facts[item])}
    assert not left_out & set(shown)
    if not any(one["action"] == "cap" for one in book):
        assert len(shown) == min(count, len(facts) - len(left_out))
    promoted = {one.item for one in answer.items if one.reason.code == "promoted"}
    for one in book:
        if one["action"] == "cap":
            first = [facts[item][one["by"]] for item in shown[: one["first"]] if item not in promoted]
            assert all(first.count(value) <= one["most"] for value in first)


def _left_out(one, facts):
    price, stock = facts.get("price"), facts.get("stock")
    passes = {
        "brand == 'Acme'": facts["brand"] == "Acme", "price > 5": price > 5, "category == 'misc'":
        facts["category"] == "misc", "stock < 10": stock is not None and stock < 10, "price < 0": False,
    }  # fmt: skip
    if one["action"] == "min_stock":
        return stock is not None and stock < one["least"]
    return {"exclude": lambda: passes[one["where"]], "include": lambda: not passes[one["where"]]}.get(
        one["action"], lambda: False
    )()


def test_pages_neither_repeat_nor_skip(shop):
    whole = items(ask(shop, user="ann", count=13))
    pages, cursor = [], None
    while True:
        page = ask(shop, user="ann", count=4, cursor=cursor)
        pages += items(page)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(pages) == sorted(whole)
    assert pages[:4] == whole[:4]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("rules: [{id: a, action: exclude, where: 'colour == 1'}]", "rule a.where"),
        ("rules: [{id: a, action: exclude}]", "rule a.where"),
        ("rules: [{id: a, action: explode}]", "rule a"),
        ("rules: [{id: a, action: boost, where: 'price > 1', factor: 0}]", "rule a.factor"),
        ("rules: [{id: a, action: min_stock, least: 1, when: 'price > 1'}]", "rule a.when"),
        ("rules: [{id: a, action: min_stock, least: 1, start: 2026-02-01, end: 2026-01-01}]", "rule a"),
        ("rules: [{id: a, action: min_stock, least: 1, placements: [moon]}]", "rule a.placements.0"),
        ("rules: [{id: a, action: min_stock, least: 1}, {id: a, action: min_stock, least: 2}]", "rule a.id"),
        ("placements: {home: {strategy: magic}}", "placement home.strategy"),
        ("rule: []", "rule"),
        ("rules: [", "book"),
        ("- 1", "book"),
    ],
)
def test_a_bad_book_is_refused_and_the_field_is_named(text, field):
    with pytest.raises(BadBook) as error:
        parse_book(text)
    assert error.value.field == field


def test_books_are_versions():
    store = MemoryStore()
    assert (live_version(store), read_book(store, 0).book) == (0, Book())
    book = to_book({"rules": [rule("min_stock", least=3)]})
    assert put_book(store, book, "ann", NOW, "first") == 1
    assert put_book(store, Book(), "bob", NOW) == 2
    assert read_book(store, 1).book == book
    assert [(r["version"], r["author"], r["note"]) for r in history(store)] == [(2, "bob", ""), (1, "ann", "first")]


def test_a_preview_shows_both_and_changes_nothing(shop):
    book = trial({"rules": [rule("exclude", where="brand == 'Acme'")]})
    found = preview(shop.frozen(UNBOUNDED), book, RecommendRequest(user="ann", count=5), NOW)
    assert "cup" in items(found["before"])
    assert "cup" not in items(found["after"])
    assert shop.shop.rules.version == 0
    assert "cup" in items(ask(shop, user="ann", count=5))


def test_lint_finds_contradictions_and_rules_without_effect(shop):
    book = to_book({"rules": [
        {"id": "none", "action": "boost", "where": "brand == 'Initech'", "factor": 2},
        {"id": "all", "action": "exclude", "where": "True"},
        {"id": "pin", "action": "pin", "items": ["cup", "nowhere"]},
        {"id": "pin2", "action": "pin", "items": ["tea"], "priority": 5},
        {"id": "over", "action": "min_stock", "least": 2, "end": "2001-01-01T00:00Z"},
        {"id": "up", "action": "boost", "where": "brand == 'Acme'", "factor": 2},
        {"id": "down", "action": "boost", "where": "price > 5", "factor": 0.5},
    ]})  # fmt: skip
    said = {(found["rule"], found["message"]) for found in lint(book, shop.shop.catalogue, NOW)}
    for expected in (
        ("none", "no item's brand is 'Initech'"), ("all", "leaves out every item"),
        ("pin", "pins nowhere, which is not in the catalogue"), ("pin", "pins cup, which all leaves out"),
        ("pin2", "wants position 1 as pin does; pin2 gets it"), ("over", "ended on 2001-01-01 00:00 UTC"),
        ("down", "buries 1 items that up boosts, or the other way round"),
    ):  # fmt: skip
        assert expected in said
    assert lint(to_book({"rules": [rule("boost", where="price > 5", factor=2)]}), shop.shop.catalogue, NOW) == []


def test_lint_says_what_is_over_and_what_never_comes_and_nothing_that_follows_from_it(shop):
    said = lint(to_book({"rules": [
        rule("exclude", where="brand == 'Acme'", end="2001-01-01T00:00Z"),
        {"id": "up", "action": "promote", "where": "brand == 'Acme'", "positions": [1]},
        {"id": "night", "action": "boost", "where": "price > 5", "factor": 2, "when": "hour > 23 or weekday == 6"},
        {"id": "day", "action": "boost", "where": "price > 5", "factor": 2, "when": "8 < hour < 20 or hour in [7]"},
    ]}), shop.shop.catalogue, NOW)  # fmt: skip
    assert [(one["rule"], one["message"]) for one in said] == [
        ("r", "ended on 2001-01-01 00:00 UTC"),
        ("night", "hour > 23 never holds, at no hour (0 to 23) of any weekday (0 to 6)"),
    ]


def test_lint_tells_what_contradicts_everywhere_from_what_does_so_in_some_places(shop):
    pin = {"id": "pin", "action": "pin", "items": ["cup"]}
    include = {"id": "only", "action": "include", "where": "category == 'misc'"}

    def levels(**of_include):
        book = to_book({"rules": [pin, {**include, **of_include}]})
        return [(one["rule"], one["level"]) for one in lint(book, shop.shop.catalogue, NOW)]

    assert levels() == [("pin", "error")]
    assert levels(placements=["search"]) == [("pin", "warning")]
    assert levels(when="hour < 9") == [("pin", "warning")]


def test_lint_points_out_a_rule_that_leaves_hardly_anything(shop):
    most = rule("exclude", where="price < 9")
    (found,) = lint(to_book({"rules": [most]}), shop.shop.catalogue, NOW)
    assert found["message"].startswith("leaves out 1")
    assert lint(to_book({"rules": [{**most, "placements": ["search"]}]}), shop.shop.catalogue, NOW) == []


def test_an_experiment_that_nothing_is_written_of_is_pointed_out():
    book = to_book({"experiments": [{"id": "e", "arms": [{"name": "a"}, {"name": "b", "diversity": 0.4}]}]})
    assert [one["rule"] for one in unmeasured(book, 0.0)] == ["e"]
    assert unmeasured(book, 0.1) == []


def test_rules_act_on_answers_from_memory_too():
    recommender, store = recommender_of(shop_events(), PRODUCTS)
    recommender.shop.rules = Compiled(to_book({"rules": [rule("exclude", where="brand == 'Acme'")]}), 1)
    store.away = True
    answer = ask(recommender, user="ann", count=13)
    assert answer.fallback == "last_known_popular"
    assert answer.items
    assert not {"tea", "cup"} & set(items(answer))


def test_the_clock_of_rules_is_the_requests(shop):
    later = rule("exclude", where="brand == 'Acme'", when="hour >= 0 and weekday in [0, 1, 2, 3, 4, 5, 6]")
    assert "cup" not in items(with_rules(shop, later, at=NOW + DAY))


def test_a_placement_s_answers_are_kept_until_the_user_acts_or_something_they_are_made_of_changes():
    recommender, store = recommender_of(shop_events(), PRODUCTS)
    book = to_book({"placements": {"home": {"cache_s": 60}}})
    recommender.shop.rules = Compiled(book, 1)
    first = ask(recommender, user="ann", placement="home")
    assert ask(recommender, user="ann", placement="home") is first
    assert ask(recommender, user="ann", placement="home", count=3) is not first
    assert ask(recommender, user="ann") is not first or ask(recommender, user="ann").placement == ""
    (later,) = recommender.recommend([RecommendRequest(user="ann", placement="home")], NOW + 61_000)
    assert later is not first
    fold_into(store, [Event("ann", "other3", NOW)], first=1000)
    after = ask(recommender, user="ann", placement="home")
    assert after is not first
    assert items(after) != items(first)
    recommender.shop.rules = Compiled(book, 2)
    assert ask(recommender, user="ann", placement="home") is not after
