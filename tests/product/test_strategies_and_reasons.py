"""Every strategy and every reason, in answers of the real product to real requests."""

import pytest

from serving.request.reasons import REASONS
from serving.request.requests import STRATEGIES

REQUESTS = {
    "because_bought": {"user": "carl", "repeat": "exclude"},
    "because_carted": {"user": "cara", "repeat": "exclude"},
    "because_interested": {"user": "wim", "repeat": "exclude"},
    "because_viewed": {"user": "ann", "repeat": "exclude"},
    "bought_together": {"items": ["pen"], "strategy": "bought_together"},
    "seen_together": {"items": ["tea"], "strategy": "bought_together"},
    "related_to": {"items": ["other0"], "strategy": "session", "count": 40},
    "similar_to": {"items": ["tea"], "strategy": "similar"},
    "buy_again": {"user": "eve", "strategy": "buy_again"},
    "bought_before": {"user": "bob", "strategy": "buy_again"},
    "carted_before": {"user": "cara", "count": 40},
    "seen_before": {"user": "ann", "count": 40},
    "matches_affinity": {"user": "ann", "strategy": "collaborative", "count": 20},
    "matches_price": {"user": "priced", "strategy": "collaborative", "count": 20},
    "matches_taste": {"user": "eve", "strategy": "collaborative", "count": 20},
    "popular_in": {"strategy": "popular", "count": 20},
    "trending_in": {"strategy": "trending"},
    "available": {"filters": {"brands": ["Nobody"]}},
    "new_arrival": {"strategy": "new"},
    "promoted": {"user": "ann", "placement": "landing"},
    "exploration": {"user": "ann", "count": 5, "explore": 2, "seed": 1},
    "fallback": {"user": "ann"},
}
"""A request whose answer has the reason."""


def test_the_tables_have_every_strategy_and_every_reason():
    assert set(REQUESTS) == set(REASONS)
    assert (len(STRATEGIES), len(REASONS)) == (10, 22)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_gives_a_list_of_its_own(shop, strategy):
    answer = shop.ask(user="eve", items=["tea"], strategy=strategy, count=5)
    assert answer["strategy"] == strategy
    assert len({one["item"] for one in answer["items"]}) == 5
    own = {"trending": "mate", "new": "other9", "bought_together": "cup"}
    if strategy in own:
        assert answer["items"][0]["item"] == own[strategy]


@pytest.mark.parametrize("lang", ["en", "de"])
@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "fallback"])
def test_a_reason_is_given_with_its_text(shop, name, lang):
    answer = shop.ask(**REQUESTS[name], lang=lang)
    found = [one["reason"] for one in answer["items"] if one["reason"]["code"] == name]
    assert found, [one["reason"] for one in answer["items"]]
    assert set(found[0]["args"]) == set(REASONS[name].args)
    beginning, _, rest = REASONS[name].texts[lang].partition("{")
    assert found[0]["text"].startswith(beginning)
    assert found[0]["text"].endswith(rest.rpartition("}")[2])


def test_trending_items_come_by_how_much_faster_they_are_viewed_than_before(shop):
    found = [one["item"] for one in shop.ask(strategy="trending", count=20)["items"]]
    assert found.index("mate") < found.index("tea") < found.index("sofa")


@pytest.mark.parametrize(
    ("scope", "name", "inside", "outside"),
    [("brand", "Acme", {"tea", "mate"}, {"cup", "sofa"}), ("country", "FR", {"sofa"}, {"tea", "cup"}),
     ("country", "DE", {"tea", "cup"}, {"sofa"}), ("category", "drinks/tea", {"tea"}, {"cup"}),
     ("all", "", {"tea", "cup", "sofa"}, set())],
)  # fmt: skip
def test_a_popular_list_is_of_its_scope_by_every_way(shop, scope, name, inside, outside):
    from serving.proto import headrace_pb2

    rest = shop.client.get("/v1/popular", params={"scope": scope, "name": name}).json()
    rpc = shop.stub.Popular(headrace_pb2.PopularRequest(scope=scope, name=name))
    query = f'{{ popular(scope: "{scope}", name: "{name}") {{ items {{ item }} }} }}'
    graph = shop.client.post("/graphql", json={"query": query}).json()["data"]["popular"]
    lists = [[one["item"] for one in found["items"]] for found in (rest, graph)] + [[one.item for one in rpc.items]]
    assert lists[0] == lists[1] == lists[2]
    assert inside <= set(lists[0])
    assert not outside & set(lists[0])


def test_the_last_known_list_is_given_with_its_reason_while_redis_is_away(shop):
    process = shop.redis.process
    import signal
    import time

    from helpers.up import wait_for

    process.send_signal(signal.SIGSTOP)
    try:
        answer = wait_for(lambda: (found := shop.ask(**REQUESTS["fallback"]))["fallback"] != "personalised" and found)
        assert {one["reason"]["code"] for one in answer["items"]} == {"fallback"}
        assert answer["fallback"] == "last_known_popular"
    finally:
        process.send_signal(signal.SIGCONT)
    wait_for(lambda: shop.ask(**REQUESTS["fallback"])["fallback"] == "personalised" or time.sleep(0.2))
