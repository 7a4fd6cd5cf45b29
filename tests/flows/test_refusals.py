"""What users refuse: folded exactly, never pushed out by the history, gone with the user."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from helpers.fold_oracle import EPOCH_MS, Event, batch_of, refusals
from helpers.lanes import PREFIX, SETTINGS, fold, user_row
from hypothesis import given
from hypothesis import strategies as st

from flows.fold import encoded_rows
from flows.fold import refusals as fold_module
from flows.fold.lane import Lane
from schemas.events import Erasure, Kind
from schemas.ids import hash_id
from state.rows import keys
from state.rows.refusal_rows import MAX_REFUSED, decode_refusals, empty_refusals
from state.rows.user_rows import FLAG_REFUSES

ROOMY = replace(SETTINGS, max_cached_items=2000)
KINDS = (Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.DISLIKE, Kind.RETURN, Kind.REMOVE_FROM_CART, Kind.SHARE)


def row_of(store, user):
    rows = empty_refusals(1)
    decode_refusals([store.rows.get(keys.refusals(PREFIX, hash_id(user)))], np.array([0]), rows)
    n = int(rows.n[0])
    assert rows.item[0, :n].tolist() == sorted(rows.item[0, :n].tolist())
    return dict(zip(rows.item[0, :n].tolist(), rows.second[0, :n].tolist(), strict=True))


@st.composite
def opinions(draw):
    kinds = st.sampled_from([(kind, 1.0) for kind in KINDS] + [(Kind.RATING, stars) for stars in (1, 2, 3, 5)])
    one = st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 9), kinds)
    drawn = draw(st.lists(one, min_size=1, max_size=50))
    return [Event(u, i, EPOCH_MS + at * 1000, kind, str(n), value=v) for n, (u, i, at, (kind, v)) in enumerate(drawn)]


@given(opinions(), st.lists(st.integers(1, 49), max_size=5), st.booleans())
def test_the_rows_hold_what_the_definition_says_however_the_log_is_cut(events, cuts, crash):
    store = fold(events, [cut for cut in cuts if cut < len(events)], crash=crash)
    assert store.rows == fold(events).rows
    for user in {event.user for event in events}:
        expected = {hash_id(item): second for item, second in refusals(events).get(user, {}).items()}
        assert row_of(store, user) == expected
        assert (keys.refusals(PREFIX, hash_id(user)) in store.rows) == bool(expected)
        assert bool(user_row(store, user)["flags"][0] & FLAG_REFUSES) == bool(expected)


@given(opinions(), st.integers(0, 49))
def test_a_suffix_delivered_again_changes_nothing(events, first):
    store = fold(events)
    before, first = dict(store.rows), min(first, len(events) - 1)
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    changes = lane.apply(*batch_of(events[first:], len(events)))
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    named = [key for key in before if key[len(PREFIX) :].startswith((b"u:", b"r:"))]
    assert {key: store.rows.get(key) for key in named} == {key: before[key] for key in named}
    assert not [key for key in store.rows if key[len(PREFIX) :].startswith(b"r:") and key not in before]


def test_a_dislike_stays_after_a_hundred_events_and_a_purchase_lifts_it():
    events = [Event("u", "sofa", EPOCH_MS, Kind.DISLIKE)]
    events += [Event("u", f"i{n}", EPOCH_MS + 1000 * n) for n in range(1, 101)]
    assert row_of(fold(events, settings=ROOMY), "u") == {hash_id("sofa"): EPOCH_MS // 1000}
    assert hash_id("sofa") not in user_row(fold(events, settings=ROOMY), "u")["item"][0]
    events += [Event("u", "sofa", EPOCH_MS + 10**6, Kind.PURCHASE)]
    assert row_of(fold(events, settings=ROOMY), "u") == {}


def test_what_was_bought_before_it_was_sent_back_lifts_nothing():
    late = [Event("u", "a", EPOCH_MS + 5000, Kind.RETURN), Event("u", "a", EPOCH_MS, Kind.PURCHASE)]
    assert row_of(fold(late), "u") == {hash_id("a"): EPOCH_MS // 1000 + 5}


def test_of_more_refusals_than_fit_the_newest_are_kept():
    n = 2 * MAX_REFUSED
    times = np.random.default_rng(1).permutation(n).tolist()
    events = [Event("u", f"i{k}", EPOCH_MS + 1000 * at, Kind.DISLIKE) for k, at in enumerate(times)]
    store = fold(events, range(0, n, 37), ROOMY, crash=True)
    assert store.rows == fold(events, settings=ROOMY).rows
    newest = {hash_id(e.item): e.ts_ms // 1000 for e in sorted(events, key=lambda e: e.ts_ms)[-MAX_REFUSED:]}
    assert row_of(store, "u") == newest


def test_more_users_than_are_cached_or_unpacked_at_once_give_the_same_rows(monkeypatch):
    events = [
        Event(f"u{k % 40}", f"i{k % 7}", EPOCH_MS + k * 1000, Kind.DISLIKE if k % 3 else Kind.PURCHASE)
        for k in range(400)
    ]
    expected = fold(events).rows
    monkeypatch.setattr(encoded_rows, "MAX_CACHED", 5)
    monkeypatch.setattr(fold_module, "USERS_AT_ONCE", 3)
    assert fold(events, range(0, 400, 9)).rows == expected


@pytest.mark.parametrize("back", [False, True])
def test_an_erased_user_refuses_nothing_any_more(back):
    store = fold([Event("u", "a", EPOCH_MS, Kind.DISLIKE), Event("v", "a", EPOCH_MS, Kind.DISLIKE)])
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    after = Event("u", "b", EPOCH_MS + 9000, Kind.RATING, value=1) if back else Event("w", "b", EPOCH_MS + 9000)
    decoded, raw = batch_of([Event("u", "c", EPOCH_MS + 1, Kind.RETURN), after], 2)
    decoded.erasures.append(Erasure(1, "u", EPOCH_MS))
    changes = lane.apply(decoded, raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    assert row_of(store, "u") == ({hash_id("b"): EPOCH_MS // 1000 + 9} if back else {})
    assert row_of(store, "v") == {hash_id("a"): EPOCH_MS // 1000}


def test_users_who_only_look_and_buy_have_no_row():
    kinds = itertools.cycle([Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.REMOVE_FROM_CART])
    store = fold([Event("u", f"i{n % 3}", EPOCH_MS + n, next(kinds)) for n in range(60)])
    assert not [key for key in store.rows if key[len(PREFIX) :].startswith(b"r:")]
