import numpy as np
import pytest
from fold_oracle import Event
from hypothesis import given
from hypothesis import strategies as st
from serving_rows import DAY, NOW, shop_events
from test_service import ask, items, recommender_of

from schemas.events import Kind
from serving.habits import HALF_LIFE_MS, LEAST_AGAIN, LEAST_PURCHASES, habits


def by_definition(purchases):
    """The same with dictionaries."""
    days = {(item, ts // DAY) for item, ts in purchases}
    distinct = {item for item, _ in purchases}
    if len(purchases) < LEAST_PURCHASES or len(days) - len(distinct) < LEAST_AGAIN * len(days):
        return []
    newest = max(ts for _, ts in purchases)
    weight = {x: sum(2 ** ((ts - newest) / HALF_LIFE_MS) for item, ts in purchases if item == x) for x in distinct}
    return sorted(((x, w / sum(weight.values())) for x, w in weight.items()), key=lambda pair: (-pair[1], pair[0]))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 200).map(lambda day: day * DAY + 7)), max_size=30))
def test_habits_are_their_definition(purchases):
    found, share = habits(np.array([i for i, _ in purchases], np.uint64), np.array([t for _, t in purchases], np.int64))
    expected = by_definition(purchases)
    assert dict(zip(found.tolist(), share.tolist(), strict=True)) == pytest.approx(dict(expected))
    assert list(share) == sorted(share, reverse=True)


def buys(user, *purchases):
    return [Event(user, item, NOW - days * DAY, Kind.PURCHASE) for item, days in purchases]


@pytest.fixture(scope="module")
def shop():
    weekly = buys("eve", *[("milk", 40), ("milk", 30), ("bread", 30), ("milk", 20), ("salt", 20), ("bread", 10)])
    once = buys("sam", *[(f"sofa{n}", 40 - n) for n in range(8)])
    return recommender_of([*weekly, *once, *shop_events()])[0]


def test_a_returning_customer_with_habits_gets_them_first_and_is_told_why(shop):
    answer = ask(shop, user="eve", count=5)
    assert items(answer)[:3] == ["milk", "bread", "salt"]
    assert answer.items[0].source == "repeat"
    assert answer.items[0].reason.code == "buy_again"
    assert answer.items[0].reason.args == {"interval_days": "10"}
    assert len(set(items(answer))) == 5


def test_without_habits_in_context_or_when_not_to_repeat_the_mixture_decides(shop):
    assert items(ask(shop, user="sam", count=3))[0] not in ("sofa0", "sofa1", "sofa2", "sofa3")
    assert items(ask(shop, user="eve", count=5, items=["tea"]))[0] != "milk"
    for repeat in ("demote", "exclude"):
        assert items(ask(shop, user="eve", count=5, repeat=repeat))[0] != "milk"
    assert "milk" not in items(ask(shop, user="eve", count=5, exclude_purchased=True))
