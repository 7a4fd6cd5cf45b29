"""Decayed sums stay exact for all that settings allow, and beyond that they stay within 64 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.cooccurrence import add_pair
from flows.fold.popularity import count_event
from flows.fold.profiles import MOST_PRICES, profile_event
from headrace.settings import load_settings
from state.bounds import MAX_HALF_LIFE_S, MAX_WEIGHT, MIN_HALF_LIFE_S
from state.rows import lane_rows
from state.rows.decay import (
    EPOCH_HALF_LIVES,
    MOST_SUM,
    WEEK_MS,
    add,
    epoch_of,
    forward_score,
    forward_weight,
    plus,
    scale_bits,
    value_at,
)
from state.rows.item_rows import ADJ, decode_items, empty_items, encode_items
from state.rows.row_codec import MOST_COUNTED, counted
from state.rows.user_rows import empty_users
from state.settings import BadSettings

DAY_MS = 86_400_000
TEN_BILLION = 10**10
HALF_LIVES_MS = [MIN_HALF_LIFE_S * 1000, DAY_MS, WEEK_MS, 30 * DAY_MS, 90 * DAY_MS, MAX_HALF_LIFE_S * 1000]


class Counter:
    """One counter, and beside it the sums of its epochs as integers of any size."""

    def __init__(self, half_life_ms):
        self.half_life_ms = half_life_ms
        self.epochs, self.sums = np.zeros(1, np.int32), np.zeros((1, 2), np.int64)
        self.exact = {}

    def add(self, weight, ts_ms, times=1):
        """Add so many events of a weight; as parts that one addition may bring."""
        epoch, amount = epoch_of(ts_ms, self.half_life_ms), int(forward_weight(weight, ts_ms, self.half_life_ms))
        self.exact[epoch] = self.exact.get(epoch, 0) + amount * times
        while times:
            some = min(times, max(2**61 // max(abs(amount), 1), 1))
            add(self.epochs, self.sums, 0, epoch, amount * some)
            times -= some

    def expected(self):
        newest = max(self.exact)
        return [self.exact[newest], self.exact.get(newest - 1, 0)]


def end_of_epoch(half_life_ms, number):
    return (number + 1) * EPOCH_HALF_LIVES * half_life_ms - 1


@pytest.mark.parametrize("half_life_ms", HALF_LIVES_MS)
def test_ten_billion_events_in_the_years_of_a_shop_are_summed_exactly(half_life_ms):
    # 100 million a day for a hundred days, the last ones at the end of an epoch, where each adds the most.
    counter, days = Counter(half_life_ms), 100
    last = end_of_epoch(half_life_ms, 40 if half_life_ms > 300 * DAY_MS else 20_000_000 * 60_000 // half_life_ms)
    for hour in range(days * 24):
        counter.add(1.0, last - (days * 24 - 1 - hour) * DAY_MS // 24, TEN_BILLION // days // 24)
    assert max(abs(one) for one in counter.expected()) < MOST_SUM
    assert counter.sums[0].tolist() == counter.expected()
    now = value_at(int(counter.epochs[0]), *counter.sums[0].tolist(), half_life_ms, last)
    assert now == pytest.approx(
        sum(10**8 / 24 * 0.5 ** (h * DAY_MS / 24 / half_life_ms) for h in range(2400)), rel=1e-3
    )


def test_ten_billion_events_of_the_largest_weight_at_one_moment_are_exact_at_the_longest_half_life():
    longest = MAX_HALF_LIFE_S * 1000
    counter = Counter(longest)
    counter.add(MAX_WEIGHT, end_of_epoch(longest, 0), TEN_BILLION)
    counter.add(-MAX_WEIGHT, end_of_epoch(longest, 0), 12_345)
    assert counter.sums[0].tolist() == counter.expected()


@pytest.mark.parametrize("half_life_ms", HALF_LIVES_MS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_stream_of_any_weight_leaves_a_sum_at_its_bound_and_never_wraps(half_life_ms, sign):
    counter = Counter(half_life_ms)
    for number in (0, 1):
        counter.add(sign * 2.5 * MAX_WEIGHT, end_of_epoch(half_life_ms, number), 100 * TEN_BILLION)
    clipped = [min(max(one, -MOST_SUM), MOST_SUM) for one in counter.expected()]
    assert counter.sums[0].tolist() == clipped
    assert np.isfinite(forward_score(1, *counter.sums[0].tolist(), half_life_ms))
    counter.add(-sign * 2.5 * MAX_WEIGHT, end_of_epoch(half_life_ms, 1))
    assert abs(counter.sums[0, 0]) <= MOST_SUM


@given(st.integers(-MOST_SUM, MOST_SUM), st.integers(-MOST_SUM, MOST_SUM))
def test_plus_is_a_sum_within_bounds(total, amount):
    assert plus(total, amount) == min(max(total + amount, -MOST_SUM), MOST_SUM)


@pytest.mark.parametrize("half_life_ms", HALF_LIVES_MS)
def test_the_bound_that_the_docstring_derives(half_life_ms):
    bits = scale_bits(half_life_ms)
    assert (2 ** (46 - bits) - 1) * int(forward_weight(1.0, end_of_epoch(half_life_ms, 0), half_life_ms)) <= MOST_SUM
    largest = int(forward_weight(2.5 * MAX_WEIGHT, end_of_epoch(half_life_ms, 0), half_life_ms))
    assert largest < 2**40
    assert MOST_SUM + largest < 2**63
    steady = 106e6 * half_life_ms / DAY_MS / np.log(2) * 2.0 ** (bits + 16)
    assert steady < MOST_SUM


def test_half_lives_up_to_a_week_have_the_scale_they_always_had():
    assert {scale_bits(h) for h in HALF_LIVES_MS if h <= WEEK_MS} == {16}
    assert forward_weight(1.0, 3000, 1000) == 524_288


def test_the_totals_of_a_lane_and_the_counters_of_an_item_stay_within_64_bits():
    rows, totals = empty_items(1), np.zeros(lane_rows.SIZE, np.int64)
    half_lives = np.array([WEEK_MS, 2 * WEEK_MS], np.int64)
    rows["pop"][0], totals[lane_rows.POP + 1], totals[lane_rows.POP + 4] = MOST_SUM - 1, MOST_SUM - 1, MOST_SUM - 1
    count_event(rows, 0, totals, end_of_epoch(WEEK_MS, 0), 2.5 * MAX_WEIGHT, half_lives)
    assert rows["pop"][0, :, 0].tolist() == [MOST_SUM, MOST_SUM]
    assert totals[[lane_rows.POP + 1, lane_rows.POP + 4]].tolist() == [MOST_SUM, MOST_SUM]


def test_counters_of_32_bits_stay_at_their_largest():
    assert [int(counted(MOST_COUNTED - 1, 1)), int(counted(MOST_COUNTED, 1))] == [MOST_COUNTED, MOST_COUNTED]
    rows = empty_items(1)
    for _ in range(2):
        add_pair(rows, 0, np.uint64(7), ADJ, MOST_COUNTED - 50, 50)
    assert rows["weight"][0, ADJ, 0] == MOST_COUNTED
    rows["support"] = rows["kinds"] = rows["repeat"] = MOST_COUNTED
    read = empty_items(1)
    decode_items(encode_items(rows, np.array([0])), np.array([0]), read)
    assert read["support"][0] == MOST_COUNTED
    users = empty_users(1)
    users["price_n"], users["price_square"] = MOST_PRICES - 1, (MOST_PRICES - 1) * 103_300**2
    for _ in range(2):
        profile_event(users, 0, 0, 1.0, 1e-45, np.uint64(0), np.uint64(0), WEEK_MS)
    assert users["price_n"][0] == MOST_PRICES
    assert 0 < users["price_square"][0] <= 2**63 - 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("short_half_life_s", "59"), ("long_half_life_s", "315360001"), ("affinity_half_life_s", "nan"),
     ("weight_purchase", "100.5"), ("weight_view", "-1"), ("weight_star", "inf"), ("max_future_s", "1e12"),
     ("lateness_s", "inf"), ("session_gap_s", "1e9")],
)  # fmt: skip
def test_a_setting_beyond_its_bound_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"HEADRACE_{name.upper()}", value)
    with pytest.raises(BadSettings, match=f"HEADRACE_{name.upper()}"):
        load_settings()
