"""Experiments: who gets which arm, what an arm changes, and what the log says it did."""

import time

import grpc
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.running_server import running
from helpers.serving_rows import DAY, NOW, product, shop_events
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.evaluation.experiment_report import read_log, report
from schemas.avro_decoder import Limits
from schemas.events import Kind
from schemas.ids import hash_id, hash_visitor
from schemas.registry import FolderRegistry
from serving.engine.recommender import BadRequest
from serving.http.rules_api import trial
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.book_errors import BadBook
from serving.rules.book_store import to_book
from serving.rules.experiments import Experiment, assign
from serving.rules.lint import lint

ARMS = [{"name": "control"}, {"name": "popular", "strategy": "popular"}]
BOOK = {
    "rules": [{"id": "no-cups", "action": "exclude", "where": "category == 'cups'"}],
    "experiments": [
        {"id": "e1", "arms": ARMS},
        {
            "id": "e2",
            "arms": [{"name": "as-is"}, {"name": "all", "without_rules": ["no-cups"]}],
            "placements": ["home"],
        },
    ],
}
visitors = st.text(min_size=1, max_size=12)


@pytest.fixture(scope="module")
def shop():
    products = [product("tea", "Tea", category="drinks"), product("cup", "Cup", category="cups")]
    return recommender_of([*shop_events(), Event("zoe", "cup", NOW - 1000)], products)[0]


@given(visitors, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_visitor_keeps_the_arm_while_the_share_grows(visitor, share, more):
    before, after = (
        Experiment(id="e", share=one, arms=ARMS).arm_of(hash_visitor(visitor, None)) for one in sorted((share, more))
    )  # fmt: skip
    assert before is None or before == after


def test_arms_get_visitors_by_weight_and_independently_of_other_experiments():
    arms = [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]
    one, other = (Experiment(id=name, share=0.5, arms=arms) for name in ("x", "y"))
    n = 20_000
    chosen = [(one.arm_of(hash_id(f"user-{k}")), other.arm_of(hash_id(f"user-{k}"))) for k in range(n)]
    inside = [(a.name, b.name) for a, b in chosen if a and b]
    assert abs(len(inside) / n - 0.25) < 0.02
    assert abs(sum(a == "b" for a, _ in inside) / len(inside) - 0.75) < 0.03
    assert abs(sum(a == "b" and b == "b" for a, b in inside) / len(inside) - 0.5625) < 0.03


def test_earlier_experiments_win_and_only_visitors_take_part():
    first = Experiment(id="a", arms=[{"name": "x", "count": 3}, {"name": "y", "count": 3}])
    second = Experiment(id="b", arms=[{"name": "x", "count": 5, "explore": 1}, {"name": "y", "count": 5, "explore": 1}])
    assert dict(assign((first, second), "home", hash_id("ann"), {}, NOW).changes) == {"count": 3, "explore": 1}
    assert assign((first, second), "home", 0, {}, NOW).arms == ()
    assert assign((first,), "home", 0, {"a": "y"}, NOW).arms == (("a", "y"),)


@pytest.mark.parametrize(
    ("more", "runs"),
    [
        ({"enabled": False}, False),
        ({"placements": ["basket"]}, False),
        ({"placements": ["home"]}, True),
        ({"start": "2999-01-01"}, False),
        ({"end": "2001-01-01T00:00:00+02:00"}, False),
    ],
)
def test_an_experiment_runs_where_and_when_it_says(more, runs):
    assert Experiment(id="e", arms=ARMS, **more).runs("home", NOW) == runs


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ({"id": "e", "arms": ARMS[:1]}, "arms"),
        ({"id": "e", "arms": [ARMS[0], ARMS[0]]}, "same name"),
        ({"id": "e", "arms": ARMS, "share": 0}, "share"),
        ({"id": "e", "arms": ARMS, "placements": ["nowhere"]}, "nowhere"),
        ({"id": "e", "arms": [ARMS[0], {"name": "x", "without_rules": ["gone"]}]}, "gone"),
        ({"id": "e", "arms": ARMS, "start": "2026-02-01", "end": "2026-01-01"}, "before end"),
    ],
)
def test_bad_experiments_are_refused_with_what_is_wrong(experiment, said):
    with pytest.raises(BadBook, match=said):
        to_book({"experiments": [experiment]})


def answered(shop, **request):
    return shop.recommend([RecommendRequest(**{"user": "ann", "count": 3, **request})], NOW, trial(BOOK))[0]


def test_an_arm_changes_what_the_request_does_not_say_and_the_answer_names_it(shop):
    popular = answered(shop, experiments={"e1": "popular"})
    assert (popular.strategy, popular.experiments["e1"]) == ("popular", "popular")
    assert answered(shop, experiments={"e1": "popular"}, strategy="session").strategy == "session"
    assert "cup" not in items(answered(shop, experiments={"e2": "as-is"}))
    assert "cup" in items(answered(shop, experiments={"e2": "all"}, repeat="exclude"))
    own = answered(shop)
    assert set(own.experiments) == {"e1", "e2"}
    assert own.attribution.endswith(",".join(f"{name}:{arm}" for name, arm in own.experiments.items()))
    assert ":" not in popular.attribution  # a chosen arm is a trial
    assert answered(shop, user=None, items=["tea"]).experiments == {}
    assert "e2" not in answered(shop, placement="email").experiments


def test_lint_finds_experiments_that_get_in_each_others_way(shop):
    arms = [{"name": "a", "count": 3}, {"name": "b", "count": 4, "explore": 1}]
    book = to_book({"experiments": [
        {"id": "first", "arms": arms, "placements": ["home", "email"]},
        {"id": "second", "arms": arms, "placements": ["email"], "end": "2001-01-01"},
        {"id": "apart", "arms": arms, "placements": ["basket"]},
        {"id": "off", "arms": arms, "enabled": False},
    ]})  # fmt: skip
    assert [(found["rule"], found["message"]) for found in lint(book, shop.shop.catalogue, NOW)] == [
        ("second", "ended on 2001-01-01 00:00 UTC"),
        ("second", "sets count, explore as first does, which is first and wins"),
    ]


def test_arms_that_are_not_there_are_refused(shop):
    with pytest.raises(BadRequest, match=r"experiments\.e9"):
        shop.check(RecommendRequest(experiments={"e9": "x"}))
    with pytest.raises(ValidationError):
        RecommendRequest(experiments={"Bad Name": "x"})
    assert ask(shop, user="ann").experiments == {}


def test_arms_go_over_all_three_apis_onto_the_log_and_into_the_report(tmp_path):
    recommender, _ = recommender_of(shop_events())
    recommender.shop.rules = Compiled(to_book({"experiments": [{"id": "e1", "arms": ARMS}]}), 1)
    experiment = recommender.shop.rules.book.experiments[0]
    people = [f"v{n}" for n in range(10)]
    with running(tmp_path, recommender, impressions_share=1.0) as server:
        by_rest = {
            user: server.client.post("/v1/recommend", json={"user": user, "count": 2}).json()["experiments"]["e1"]
            for user in people
        }
        assert by_rest == {user: experiment.arm_of(hash_id(user)).name for user in people}
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = headrace_pb2_grpc.HeadraceStub(channel)
            message = headrace_pb2.RecommendRequest(user="v1", count=2)
            assert dict(stub.Recommend(message).experiments) == {"e1": by_rest["v1"]}
            message.experiments["e1"] = "popular"
            assert dict(stub.Recommend(message).experiments) == {"e1": "popular"}
        asked = 'query($e: JSON!) { recommend(user: "v1", experiments: $e) { experiments strategy } }'
        found = server.client.post("/graphql", json={"query": asked, "variables": {"e": {"e1": "popular"}}}).json()
        assert found["data"]["recommend"] == {"experiments": {"e1": "popular"}, "strategy": "popular"}
        wrong = server.client.post("/v1/recommend", json={"experiments": {"e1": "gone"}})
        assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "experiments.e1")
        bought = [user for user in people if by_rest[user] == "popular"]
        for user in bought:
            body = {"type": "purchase", "user": user, "order_id": user, "lines": [{"item": "tea", "quantity": 1}]}
            assert server.client.post("/v1/events", json=body).status_code == 202
        server.impressions.close()
        now_ms = time.time_ns() // 1_000_000
        seen = read_log(server.log, FolderRegistry(), "e1", int(Kind.PURCHASE), now_ms, Limits(), 5, lambda n: None)
    control, popular = report(experiment, seen, DAY)["arms"]
    assert (popular["visitors"], popular["converted"]) == (len(bought), len(bought))
    assert (control["visitors"], control["converted"]) == (len(people) - len(bought), 0)
    assert control["lists"] + popular["lists"] == len(people) + 1  # those of chosen arms are not counted
