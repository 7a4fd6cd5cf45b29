import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import DAY, NOW, shop_events
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.purchases import add_purchases
from schemas.events import Kind
from serving.candidates.repurchase import HALF_LIFE_DAYS, LEAST_PURCHASES, POPULARITY, SHOP_OF_HABITS, habits
from state.rows.purchase_rows import empty_purchases


def by_definition(purchases, totals, popularity):
    """The same with dictionaries; `purchases`: (item, day)."""
    days = {item: sorted(day for other, day in purchases if other == item) for item, _ in purchases}
    again = any(at[0] < at[-1] for at in days.values()) or totals[1] > SHOP_OF_HABITS * totals[0]
    if len(purchases) < LEAST_PURCHASES or not again:
        return {}
    newest = max(day for _, day in purchases)
    weight = {
        item: len(at) * 2 ** ((at[-1] - newest) / HALF_LIFE_DAYS) * (1 + popularity[item]) ** POPULARITY
        for item, at in days.items()
    }
    return {item: w / sum(weight.values()) for item, w in weight.items()}


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 200)), max_size=30),
    st.tuples(st.just(100), st.integers(0, 20)),
)
def test_habits_are_their_definition(purchases, totals):
    rows = empty_purchases(1)
    bought = np.array([item for item, _ in purchases], np.uint64)
    times = np.array([20_000 + day for _, day in purchases], np.int64) * DAY
    add_purchases(
        rows, np.zeros(len(bought), np.int64), bought, times, np.zeros(2, np.int64), np.zeros(len(bought), np.uint64)
    )
    popularity = {item: 7.0 * item for item in range(1, 7)}
    of_row = np.array([popularity[i] for i in rows.item[0, : rows.n[0]].tolist()])
    found, share = habits(rows, 0, np.array(totals), of_row)
    expected = by_definition(purchases, totals, popularity)
    assert dict(zip(found.tolist(), share.tolist(), strict=True)) == pytest.approx(expected)
    assert list(share) == sorted(share, reverse=True)
    regular = {item for item in expected if len({day for other, day in purchases if other == item}) > 1}
    assert habits(rows, 0, np.array(totals), of_row, only_regular=True)[0].tolist() == [
        item for item in found.tolist() if item in regular
    ]


def buys(user, *purchases):
    return [Event(user, item, NOW - days * DAY, Kind.PURCHASE) for item, days in purchases]


@pytest.fixture(scope="module")
def shop():
    weekly = buys("eve", *[("milk", 40), ("milk", 30), ("bread", 30), ("milk", 20), ("salt", 20), ("bread", 10)])
    once = buys("sam", *[(f"sofa{n}", 60 - n) for n in range(30)])
    return recommender_of([*weekly, *once, *shop_events()])[0]


def test_a_returning_customer_with_habits_gets_them_first_and_is_told_why(shop):
    assert items(ask(shop, user="eve", count=5, repeat="allow"))[:3] == ["milk", "bread", "salt"]
    answer = ask(shop, user="eve", count=5)
    assert items(answer)[:2] == ["milk", "bread"]
    assert items(answer)[2] != "salt"  # bought once: nothing says that it is bought again
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
