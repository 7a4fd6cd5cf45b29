import math

import numpy as np
import pytest
from helpers.fold_oracle import EPOCH_MS, Event, Expected, batch_of, decayed
from helpers.lanes import MINUTE, PREFIX, SETTINGS, fold, globals_of, item_row, shopping, user_row
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from schemas.events import Decoded, Erasure, Kind, ProductChange
from schemas.ids import hash_id
from state.rows import keys, lane_rows
from state.rows.decay import value_at
from state.rows.item_rows import decode_items, empty_items
from state.store.contract import MemoryStore


@given(shopping())
def test_the_rows_hold_what_the_definitions_say(events):
    store = fold(events)
    expected = Expected(events, SETTINGS)
    totals = globals_of(store)
    assert totals[lane_rows.SESSIONS] == expected.sessions
    assert np.array_equal(totals[: 2 * 72].reshape(72, 2), expected.current)
    assert np.array_equal(totals[2 * 72 : 2 * 216].reshape(144, 2), expected.earlier)
    for item in {event.item for event in events}:
        rows = item_row(store, item)
        neighbours = {hash_id(other): counters for other, counters in expected.pairs[item].items()}
        n = int(rows["n"][0])
        found = {int(rows["neighbour"][0, j]): rows["weight"][0, :, j].tolist() for j in range(n)}
        assert found == neighbours
        assert list(found) == sorted(found)
        assert rows["support"][0] == expected.support[item]
        assert rows["repeat"][0].tolist() == expected.repeat[item]
        own = [event for event in events if event.item == item]
        for h, half_life in enumerate((SETTINGS.short_half_life_ms, SETTINGS.long_half_life_ms)):
            now = EPOCH_MS + 86_400_000
            value = value_at(rows["pop_epoch"][0, h], rows["pop"][0, h, 0], rows["pop"][0, h, 1], half_life, now)
            assert value == pytest.approx(decayed(own, half_life, now), abs=1e-3)
    for user, own in expected.histories.items():
        rows = user_row(store, user)
        n = int(rows["n"][0])
        assert rows["item"][0, :n].tolist() == [hash_id(event.item) for event in own]
        assert rows["last_ms"][0] == own[-1].ts_ms


@given(shopping(), st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_any_cut_into_batches_and_any_crash_between_them_gives_the_same_bytes(events, cuts, crash):
    cuts = [cut for cut in cuts if cut < len(events)]
    assert fold(events, cuts, crash=crash).rows == fold(events).rows


@given(shopping(max_size=40, shuffled=True))
def test_late_events_leave_the_item_rows_as_if_they_had_come_in_time(events):
    settings = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048, lateness_ms=10**12)
    late = fold(events, settings=settings)
    in_time = fold(sorted(events, key=lambda e: e.ts_ms), settings=settings)
    for item in {event.item for event in events}:
        key = keys.item(PREFIX, hash_id(item))
        # Equal times of one user keep their order of arrival; distinct ones must not matter.
        if len({(e.user, e.ts_ms) for e in events}) == len(events):
            assert late.rows[key] == in_time.rows[key]


@given(shopping(), st.integers(0, 59))
def test_a_suffix_delivered_again_changes_nothing(events, first):
    store = fold(events)
    before = dict(store.rows)
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    first = min(first, len(events) - 1)
    changes = lane.apply(*batch_of(events[first:], first))
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert store.rows == before


@given(shopping(), st.randoms(use_true_random=False))
def test_users_may_interleave_in_any_way(events, random):
    events = [Event(**{**vars(e), "event_id": str(i)}) for i, e in enumerate(events)]
    left = {user: [e for e in events if e.user == user] for user in "uvw"}
    mixed = []
    while any(left.values()):
        mixed.append(left[random.choice([user for user in "uvw" if left[user]])].pop(0))
    one, other = fold(events).rows, fold(mixed).rows
    order_free = [key for key in one if key[len(PREFIX) :][:2] in (b"u:", b"i:", b"b:", b"bo", b"s:", b"gl")]
    assert {key: one[key] for key in order_free} == {key: other[key] for key in order_free}


@pytest.mark.parametrize("n_lanes", [2, 4])
@given(shopping())
def test_any_number_of_lanes_adds_up_to_one(n_lanes, events):
    one = fold(events)
    two = MemoryStore()
    for n in range(n_lanes):
        settings = LaneSettings(n_lanes=n_lanes, max_cached_users=64, max_cached_items=64, dedupe_window=2048)
        lane = Lane(settings, two, "g1", n)
        lane.open()
        changes = lane.apply(*batch_of(events))
        two.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    for item in {event.item for event in events}:
        parts = empty_items(n_lanes)
        values = [two.rows.get(keys.item(keys.prefix("g1", n), hash_id(item))) for n in range(n_lanes)]
        decode_items(values, np.arange(n_lanes), parts)
        whole = item_row(one, item)
        assert parts["support"].sum() == whole["support"][0]
        assert parts["count"].sum() == whole["count"][0]
        assert np.array_equal(parts["total"].sum(axis=0), whole["total"][0])
        pairs: dict[int, np.ndarray] = {}
        for n in range(n_lanes):
            for j in range(int(parts["n"][n])):
                other = int(parts["neighbour"][n, j])
                pairs[other] = pairs.get(other, 0) + parts["weight"][n, :, j].astype(int)
        found = {int(whole["neighbour"][0, j]): whole["weight"][0, :, j].tolist() for j in range(int(whole["n"][0]))}
        assert {other: weights.tolist() for other, weights in pairs.items()} == found


def test_an_event_id_seen_before_is_dropped_and_counted():
    events = [Event("u", "a", EPOCH_MS, event_id="1"), Event("u", "b", EPOCH_MS + 1, event_id="1")]
    store = fold(events)
    assert user_row(store, "u")["n"][0] == 1
    assert globals_of(store)[lane_rows.DUPLICATES] == 1


@pytest.mark.parametrize(
    ("late_ms", "placed"), [(10 * MINUTE - 1, True), (10 * MINUTE, True), (10 * MINUTE + 1, False)]
)
def test_an_event_later_than_the_bound_counts_in_popularity_only(late_ms, placed):
    now = EPOCH_MS + 20 * MINUTE
    events = [Event("u", "b", EPOCH_MS), Event("u", "c", now), Event("u", "a", now - late_ms)]
    store = fold(events)
    assert item_row(store, "a")["count"][0] == 100
    assert user_row(store, "u")["n"][0] == (3 if placed else 2)
    assert globals_of(store)[lane_rows.LATE] == (0 if placed else 1)


def test_a_full_history_keeps_the_newest_events_and_rows_stay_the_same_at_any_cut():
    events = [Event("u", f"i{k * 7 % 40}", EPOCH_MS + k * MINUTE) for k in range(130)]
    late = Event("u", "late", EPOCH_MS + 129 * MINUTE - 30_000)
    stores = [fold([*events, late], cuts, crash=True) for cuts in ([], range(0, 130, 7), [60, 129])]
    assert stores[0].rows == stores[1].rows == stores[2].rows
    row = user_row(stores[0], "u")
    assert row["n"][0] == 50
    assert row["seen"][0] == 131
    assert row["item"][0, 48] == hash_id("late")


def test_more_users_and_items_than_the_cache_holds_give_the_same_rows():
    events = [Event(f"u{k % 50}", f"i{k * 13 % 300}", EPOCH_MS + k * 1000) for k in range(600)]
    small = LaneSettings(max_cached_users=20, max_cached_items=100, dedupe_window=2048)
    big = LaneSettings(max_cached_users=500, max_cached_items=500, dedupe_window=2048)
    assert fold(events, range(0, 600, 5), small).rows == fold(events, [], big).rows


def test_scope_lists_hold_the_heaviest_items_of_all_category_and_brand():
    settings = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048, small_scope_limit=2)
    events = [Event("u", item, EPOCH_MS + k, category="tea") for k, item in enumerate("aaabbc")]
    store = fold(events, settings=settings)
    key = keys.scope(PREFIX, lane_rows.scope_hash(lane_rows.CATEGORY, hash_id("tea")))
    scope = lane_rows.decode_scope(store.rows[key])
    heaviest = scope.item[np.argsort(-scope.long)].tolist()
    assert heaviest == [hash_id("a"), hash_id("b")]
    everything = lane_rows.decode_scope(store.rows[keys.scope(PREFIX, lane_rows.scope_hash(lane_rows.ALL, 0))])
    assert set(everything.item.tolist()) == {hash_id(item) for item in "abc"}


def test_a_country_counts_its_own_events():
    store = fold([Event("u", "a", EPOCH_MS, country="de"), Event("v", "a", EPOCH_MS, country="fr")])
    key = keys.scope(PREFIX, lane_rows.scope_hash(lane_rows.COUNTRY, hash_id("de")))
    country = lane_rows.decode_country(store.rows[key])
    assert country.n == 1
    half_life = SETTINGS.short_half_life_ms
    assert value_at(country.epoch[0, 0], *country.pop[0, 0], half_life, EPOCH_MS) == pytest.approx(1.0, abs=1e-4)
    scope = lane_rows.country_scope(country, (half_life, SETTINGS.long_half_life_ms))
    assert scope.item.tolist() == [hash_id("a")]
    assert math.isfinite(scope.short[0])


def test_a_product_change_names_the_item_in_the_feed_and_moves_it_between_categories():
    store = fold([Event("u", "a", EPOCH_MS, category="tea")])
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    _, raw = batch_of([Event("u", "", EPOCH_MS)] * 2, 1)
    product = {"title": "A", "category": "coffee", "brand": "b", "price": 3.5}
    decoded = Decoded(
        batch_of([])[0].interactions,
        [ProductChange(0, "a", EPOCH_MS, product), ProductChange(1, "z", EPOCH_MS, None)],
    )
    changes = lane.apply(decoded, raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert lane_rows.decode_feed(store.rows[keys.feed(PREFIX, 0)]) == ["a", "a", "z"]
    assert b'"gone":true' in store.rows[keys.product(PREFIX, hash_id("z"))]
    assert item_row(store, "a")["category"][0] == hash_id("coffee")
    tea = store.rows[keys.scope(PREFIX, lane_rows.scope_hash(lane_rows.CATEGORY, hash_id("tea")))]
    assert len(lane_rows.decode_scope(tea).item) == 0


def test_an_erased_user_leaves_no_row():
    store = fold([Event("u", "a", EPOCH_MS)])
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    _, raw = batch_of([Event("u", "", EPOCH_MS)], 1)
    changes = lane.apply(Decoded(batch_of([])[0].interactions, erasures=[Erasure(0, "u", EPOCH_MS)]), raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert keys.user(PREFIX, hash_id("u")) not in store.rows


def test_a_negative_event_subtracts_its_weight_and_makes_no_pair():
    events = [
        Event("u", "a", EPOCH_MS, Kind.ADD_TO_CART),
        Event("u", "a", EPOCH_MS + 1, Kind.REMOVE_FROM_CART),
        Event("u", "b", EPOCH_MS + 2),
    ]
    store = fold(events)
    row = item_row(store, "a")
    assert row["count"][0] == 0
    assert row["weight"][0, :, 0].tolist() == [100, 0, 0]
