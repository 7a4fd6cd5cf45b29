"""A rule that cannot be evaluated is refused when it is put; one that fails later is left out and said."""

import numpy as np
import orjson
import pytest
import yaml
from helpers.books import BROKEN, PRODUCTS, plant, put_book
from helpers.recommenders import ask, items, recommender_of
from helpers.running_server import running
from helpers.serving_rows import NOW, shop_events
from structlog.testing import capture_logs

from serving.http.rules_api import trial
from serving.request.requests import RecommendRequest
from serving.rules import item_filter
from serving.rules.acting import RULE_FAILURES, Compiled
from serving.rules.book_errors import BadBook
from serving.rules.book_store import parse_book, read_book, to_book
from state.rows import keys
from state.store.contract import MemoryStore

YAML = {"Content-Type": "application/yaml"}

QUOTED = 'rules:\n- {id: big-sizes, action: boost, where: number("attr.size") > 40, factor: 2}\n'
"""Field case L1."""
NO_ACME = {"id": "no-acme", "action": "exclude", "where": "brand == 'Acme'"}


@pytest.fixture
def shop():
    return recommender_of(shop_events(), PRODUCTS)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (QUOTED, "line 2, rule big-sizes, where: at 8: needs a field without quotes"),
        ("rules: [{id: far, action: exclude, where: price < 1" + "0" * 400 + "}]", "rule far"),
        ("rules: [{id: late, action: exclude, where: price < 1, when: hour < 1e999}]", "rule late"),
        ("rules: [{id: poor, action: min_margin, least: .inf}]", "rule poor"),
        ("rules: [{id: many, action: min_stock, least: 1" + "0" * 400 + "}]", "rule many"),
    ],
)
def test_a_rule_that_cannot_be_evaluated_is_refused_by_its_name(text, says):
    with pytest.raises(BadBook) as error:
        parse_book(text)
    assert says in str(error.value)


def test_a_rule_that_fails_is_left_out_and_said_and_the_others_hold(shop, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"))
    book = Compiled(to_book({"rules": [BROKEN, NO_ACME]}), 7)
    without = shop.recommend([RecommendRequest(user="ann", count=13)], NOW, trial({"rules": [NO_ACME]}))[0]
    before, many = RULE_FAILURES._value.get(), [RecommendRequest(user=user, count=13) for user in ("ann", "bob", "x")]
    with capture_logs() as logs:
        shop.shop.rules = book
        answers = shop.recommend(many, NOW)
        explained = ask(shop, user="ann", count=13, explain=True)
    assert items(answers[0]) == items(without)
    assert all(one.items and not {"tea", "cup"} & set(items(one)) for one in answers)
    assert {trace.rule: trace.effect for trace in explained.rules}["broken"].startswith("left out: rule broken cannot")
    assert RULE_FAILURES._value.get() - before == 1
    assert [line["rules"] for line in logs if line["event"] == "rules are left out"] == [["broken"]]
    assert "planted" in book.skipped["broken"]


def test_lists_from_memory_and_for_everybody_do_without_the_rule_too(shop, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"))
    for answer in (
        lambda: shop.from_memory(RecommendRequest(count=9), NOW),
        lambda: shop.popular("all", "", 9, NOW),
        lambda: shop.similar_items("tea", 9, NOW),
    ):
        shop.shop.rules = Compiled(to_book({"rules": [BROKEN]}), 8)
        assert answer().items
        assert shop.shop.rules.skipped.keys() == {"broken"}


def test_a_thousand_failing_rules_are_left_out_one_after_the_other(shop, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"))
    shop.shop.rules = Compiled(to_book({"rules": [{**BROKEN, "id": f"r{n}"} for n in range(1000)]}), 9)
    with capture_logs() as logs:
        assert ask(shop, user="ann", count=13).items
    assert len(logs) == 1
    assert len(shop.shop.rules.skipped) == 1000


def test_a_rule_whose_when_fails_for_a_request_does_not_hold_for_it(shop, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"), "hour >= 0")
    shop.shop.rules = Compiled(to_book({"rules": [{**NO_ACME, "when": "hour >= 0"}]}), 10)
    assert {"tea", "cup"} & set(items(ask(shop, user="ann", count=13)))
    assert "planted" in shop.shop.rules.skipped["no-acme"]


def test_a_lack_of_memory_is_no_fault_of_a_rule(shop, monkeypatch):
    shop.shop.rules = Compiled(to_book({"rules": [NO_ACME]}), 11)
    with monkeypatch.context() as patch:
        plant(patch, MemoryError(), NO_ACME["where"])
        with pytest.raises(MemoryError):
            ask(shop, user="ann", count=13)
    assert not {"tea", "cup"} & set(items(ask(shop, user="ann", count=13)))
    assert not shop.shop.rules.skipped


def test_boosts_together_stay_numbers(shop):
    rules = [{"id": f"b{n}", "action": "boost", "where": "True", "factor": 1000} for n in range(200)]
    shop.shop.rules = Compiled(to_book({"rules": [*rules, {**rules[0], "id": "z", "factor": 1e-9}]}), 12)
    answer = ask(shop, user="ann", count=13)
    assert answer.items
    assert np.isfinite([one.score for one in answer.items]).all()
    factors = shop.shop.selections.factors(shop.shop.rules.acting(lambda: None), 12)
    assert set(factors.tolist()) == {item_filter.MOST_FACTOR * 1e-9}


def test_a_book_put_by_an_older_program_is_read_without_the_rules_that_cannot_be():
    store, document = MemoryStore(), {
        "rules": [*yaml.safe_load(QUOTED)["rules"], NO_ACME],
        "experiments": [{"id": "e", "arms": [{"name": "a"}, {"name": "b", "without_rules": ["big-sizes", "no-acme"]}]}],
    }  # fmt: skip
    version = put_book(store, to_book({}), "ann", NOW)
    store.write({keys.rules(version): orjson.dumps({"version": version, "book": document})})
    book = read_book(store, version)
    assert [rule.id for rule in book.book.rules] == ["no-acme"]
    assert book.book.experiments[0].arms[1].without_rules == ("no-acme",)
    assert "needs a field without quotes" in book.skipped["big-sizes"]


def test_over_http_the_book_is_refused_and_what_is_left_out_is_said(tmp_path, shop, monkeypatch):
    with running(tmp_path, shop) as server:
        monkeypatch.setattr(server.guard, "admit", lambda *_: None)
        refused = server.client.put("/v1/rules", params={"author": "ann"}, content=QUOTED, headers=YAML)
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "rule big-sizes.where")
        (said,) = refused.json()["errors"]
        assert (said["line"], said["rule"], said["field"]) == (2, "rule big-sizes", "where")
        assert server.client.post("/v1/rules/lint", content=QUOTED, headers=YAML).status_code == 422
        plant(monkeypatch, RuntimeError("planted"))
        shop.shop.rules = Compiled(to_book({"rules": [BROKEN]}), 0)
        assert server.client.post("/v1/recommend", json={"user": "ann"}).status_code == 200
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["skipped_rules"]) == (200, ["broken"])
        assert "planted" in server.client.get("/v1/rules").json()["skipped_rules"]["broken"]


@pytest.mark.parametrize("text", ["rules: [5]", '{"rules": ["x"]}', "rules: [[]]", "5"])
def test_a_book_of_something_else_than_rules_is_refused(text):
    with pytest.raises(BadBook):
        parse_book(text)


def test_aliases_which_would_become_gigabytes_are_refused_and_products_are_not_taken_for_them():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    with pytest.raises(BadBook, match="aliases"):
        parse_book(bomb)
    assert (
        parse_book("rules:\n- {id: a, action: boost, where: price *2 > 3, factor: 2}").rules[0].where == "price *2 > 3"
    )
