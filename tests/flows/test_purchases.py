from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from helpers.fold_oracle import EPOCH_MS, Event, batch_of
from helpers.lanes import PREFIX, SETTINGS, fold
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.lane import Lane
from flows.fold.purchases import EVICTION_DAYS, add_purchases
from schemas.events import Erasure, Kind
from schemas.ids import hash_id
from state.rows import keys
from state.rows.purchase_rows import (
    DAY_MS,
    DAY_ZERO,
    MAX_BOUGHT,
    decode_older,
    decode_purchase_totals,
    decode_purchases,
    empty_purchases,
    encode_older,
)


def row_of(store, user):
    rows = empty_purchases(1)
    decode_purchases([store.rows.get(keys.purchases(PREFIX, hash_id(user)))], np.array([0]), rows)
    n = int(rows.n[0])
    columns = (rows.item[0, :n], rows.times[0, :n], rows.first_day[0, :n], rows.last_day[0, :n])
    return list(zip(*(column.tolist() for column in columns), strict=True))


@st.composite
def purchases(draw):
    kinds = st.sampled_from([Kind.PURCHASE, Kind.PURCHASE, Kind.VIEW, Kind.RETURN])
    one = st.tuples(st.sampled_from("uv"), st.sampled_from("abcdef"), st.integers(0, 9), kinds)
    events = draw(st.lists(one, min_size=1, max_size=40))
    return [Event(u, i, EPOCH_MS + day * DAY_MS, k, str(n)) for n, (u, i, day, k) in enumerate(events)]


@given(purchases(), st.lists(st.integers(1, 39), max_size=4), st.randoms(use_true_random=False))
def test_a_row_is_the_sum_of_its_users_purchases_in_any_order_and_any_cut(events, cuts, random):
    store = fold(events, [cut for cut in cuts if cut < len(events)], crash=True)
    days = defaultdict(list)
    for event in events:
        if event.kind == Kind.PURCHASE:
            days[event.user, hash_id(event.item)].append(event.ts_ms // DAY_MS - DAY_ZERO)
    for user in "uv":
        expected = [(item, len(at), min(at), max(at)) for (who, item), at in sorted(days.items()) if who == user]
        assert row_of(store, user) == expected
    totals = decode_purchase_totals([store.rows.get(keys.purchase_totals(PREFIX))])
    assert totals.tolist() == [len(days), sum(min(at) < max(at) for at in days.values())]
    mixed = random.sample(events, len(events))
    other = fold(mixed)
    kept = [key for key in store.rows if key[len(PREFIX) :].startswith((b"b:", b"bought"))]
    assert {key: store.rows[key] for key in kept} == {key: other.rows.get(key) for key in kept}


def test_a_full_row_gives_up_what_was_bought_least_and_longest_ago():
    rng = np.random.default_rng(3)
    items = rng.integers(1, 200, 2_000).astype(np.uint64)
    ts_ms = np.sort(rng.integers(0, 400, 2_000)) * DAY_MS + EPOCH_MS
    rows, expected = empty_purchases(1), {}
    gone, expected_gone = np.zeros(2_000, np.uint64), []
    add_purchases(rows, np.zeros(2_000, np.int64), items, ts_ms, np.zeros(2, np.int64), gone)
    for item, ts in zip(items.tolist(), ts_ms.tolist(), strict=True):
        day = ts // DAY_MS - DAY_ZERO
        if item not in expected and len(expected) == MAX_BOUGHT:
            weights = {i: np.log2(n) + last / EVICTION_DAYS for i, (n, _, last) in expected.items()}
            expected_gone.append(min(sorted(weights), key=weights.__getitem__))
            del expected[expected_gone[-1]]
        n, first, _ = expected.get(item, (0, day, day))
        expected[item] = (n + 1, first, day)
    columns = (rows.item[0], rows.times[0], rows.first_day[0], rows.last_day[0])
    found = {item: rest for item, *rest in zip(*(column.tolist() for column in columns), strict=True)}
    assert found == {item: list(rest) for item, rest in expected.items()}
    assert list(found) == sorted(found)
    assert gone[gone != 0].tolist() == expected_gone


def older_of(store, user):
    return decode_older(store.rows.get(keys.older_purchases(PREFIX, hash_id(user)))).tolist()


@pytest.mark.parametrize("crash", [False, True])
def test_all_that_a_heavy_buyer_ever_bought_is_known(crash):
    roomy, n = replace(SETTINGS, max_cached_items=5_000), MAX_BOUGHT + 150
    events = [Event("u", f"i{k}", EPOCH_MS + k * DAY_MS // 7, Kind.PURCHASE) for k in [*range(n), *range(60), 7]]
    events += [Event("v", "i1", EPOCH_MS, Kind.PURCHASE)]
    store = fold(events, range(0, n + 61, 23), roomy, crash=crash)
    assert store.rows == fold(events, settings=roomy).rows
    assert {one[0] for one in row_of(store, "u")} | set(older_of(store, "u")) == {hash_id(f"i{k}") for k in range(n)}
    assert len(set(older_of(store, "u"))) == len(older_of(store, "u"))
    assert keys.older_purchases(PREFIX, hash_id("v")) not in store.rows
    lane = Lane(roomy, store, "g1")
    lane.open()
    decoded, raw = batch_of([Event("w", "b", EPOCH_MS)], len(events))
    decoded.erasures.append(Erasure(0, "u", EPOCH_MS))
    changes = lane.apply(decoded, raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert not [key for key in store.rows if key.endswith(b"%016x" % hash_id("u"))]


def test_of_older_purchases_the_last_thousand_are_kept():
    assert decode_older(encode_older(range(1, 1_501))).tolist() == list(range(501, 1_501))
    assert decode_older(None).tolist() == []
    assert encode_older([7]).hex() == "0100000000000000" + "0700000000000000"


def test_an_erased_user_has_no_purchases_any_more():
    store = fold([Event("u", "a", EPOCH_MS, Kind.PURCHASE), Event("v", "a", EPOCH_MS, Kind.PURCHASE)])
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    decoded, raw = batch_of([Event("u", "b", EPOCH_MS + 1, Kind.PURCHASE), Event("w", "b", EPOCH_MS + 1)], 2)
    decoded.erasures.append(Erasure(1, "u", EPOCH_MS))
    changes = lane.apply(decoded, raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert row_of(store, "u") == []
    assert len(row_of(store, "v")) == 1
