"""Law 5: forget(u) after everything is never having seen u."""

import itertools
from dataclasses import replace

import numpy as np
from helpers.erased import seen_of, the_same
from helpers.fold_oracle import EPOCH_MS, Event, batch_of
from helpers.lanes import MINUTE, PREFIX, SETTINGS, fold, globals_of, shopping, user_row
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.erased_users import Erased
from flows.fold.lane import Lane
from schemas.events import Decoded, Erasure, Kind
from schemas.ids import hash_id
from state.rows import keys, lane_rows
from state.store.contract import MemoryStore

DAY = 86_400_000
PATIENT = replace(SETTINGS, lateness_ms=30 * DAY)  # so that no event is counted without being remembered


def apply(lane, store, events, first, erasures=()):
    """Fold events as one batch; an erasure (place, user) comes before the event of that place."""
    decoded, raw = batch_of(events, first)
    decoded = Decoded(decoded.interactions, erasures=[Erasure(at, user, EPOCH_MS) for at, user in erasures])
    changes = lane.apply(decoded, raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)


def erase(store, user, n_before, settings=SETTINGS):
    """Fold the erasure of a user, in a batch with one event that says nothing."""
    lane = Lane(settings, store, "g1")
    lane.open()
    apply(lane, store, [Event("nobody", "", EPOCH_MS)], n_before, [(0, user)])


@given(shopping(shuffled=True), st.sampled_from("uvw"))
def test_an_erased_user_was_never_there(events, user):
    others = [event for event in events if event.user != user]
    store, without = fold(events, settings=PATIENT), fold(others, settings=PATIENT)
    erase(store, user, len(events), PATIENT)
    the_same(store, without, {event.item for event in others})
    for item in {event.item for event in events} - {event.item for event in others}:
        pairs, counts, popularity = seen_of(store, item)
        assert not pairs
        assert not np.any(np.concatenate([np.ravel(count) for count in counts]))
        assert popularity == [0, 0]
    assert keys.user(PREFIX, hash_id(user)) not in store.rows
    assert keys.purchases(PREFIX, hash_id(user)) not in store.rows


@given(shopping(), st.data())
def test_an_erasure_holds_for_what_came_before_it_however_the_log_is_cut_into_batches(events, data):
    erasures = data.draw(st.lists(st.tuples(st.integers(0, len(events)), st.sampled_from("uvw")), max_size=3))
    erasures = sorted(one for one in erasures if one[0] < len(events))
    stores = []
    for cuts in ([], data.draw(st.lists(st.integers(0, len(events)), max_size=4))):
        store = MemoryStore()
        lane = Lane(SETTINGS, store, "g1")
        lane.open()
        for first, last in itertools.pairwise(sorted({0, *cuts, len(events)})):
            inside = [(at - first, user) for at, user in erasures if first <= at < last]
            apply(lane, store, events[first:last], first, inside)
        stores.append(store)
    assert stores[0].rows == stores[1].rows
    kept = [e for k, e in enumerate(events) if not any(at > k and user == e.user for at, user in erasures)]
    the_same(stores[0], fold(kept), {event.item for event in kept})
    for user in {event.user for event in kept}:
        assert user_row(stores[0], user)["item"].tolist() == user_row(fold(kept), user)["item"].tolist()


def test_ratings_are_taken_back_by_their_stars():
    events = [Event("v", "a", EPOCH_MS, Kind.RATING, value=5), Event("u", "a", EPOCH_MS + 1, Kind.RATING, value=1)]
    store = fold(events)
    erase(store, "u", 2)
    assert seen_of(store, "a") == seen_of(fold(events[:1]), "a")


def test_what_a_row_no_longer_holds_stays_and_nothing_else_is_taken_back_wrongly():
    # 80 events in one session: the row holds 50, and of the first 30 of these it cannot know what went before.
    events = [Event("u", f"i{k % 7}", EPOCH_MS + k * MINUTE) for k in range(80)] + [Event("v", "i1", EPOCH_MS)]
    store = fold(events)
    erase(store, "u", len(events))
    for item in {f"i{k}" for k in range(7)}:
        pairs, (total, support, repeat, count, kinds), _ = seen_of(store, item)
        assert min(*total, support, *repeat, count, *kinds, *itertools.chain(*pairs.values())) >= 0
    totals = globals_of(store)
    assert totals[lane_rows.EVENTS] == 80 - (50 - 30) + 1  # of v, and of u what the row did not know enough about
    assert totals[lane_rows.COUNT] == (80 - 50 + 1) * 100


def test_after_a_long_pause_only_what_does_not_decay_is_taken_back():
    events = [Event("u", "a", EPOCH_MS), Event("u", "b", EPOCH_MS + 60 * DAY), Event("v", "a", EPOCH_MS + 60 * DAY)]
    store = fold(events)
    erase(store, "u", 3)
    assert seen_of(store, "a")[1] == seen_of(fold(events[2:]), "a")[1]
    assert seen_of(store, "b")[2] == [0, 0]


def erased(**at_ms):
    """Return who was erased and when, as a lane is told."""
    return Erased.of({hash_id(user): at for user, at in at_ms.items()})


def without_positions(store):
    return {key: value for key, value in store.rows.items() if key != keys.positions(PREFIX)}


@given(shopping(max_size=120, shuffled=True), st.lists(st.integers(0, 120), max_size=4), st.data())
def test_who_was_erased_later_is_never_seen_where_that_is_known_from_the_start(events, cuts, data):
    events = [replace(event, event_id=f"e{k}", price=float(k % 7)) for k, event in enumerate(events)]
    times = sorted(event.ts_ms for event in events)
    known = {user: data.draw(st.sampled_from(times)) for user in data.draw(st.sets(st.sampled_from("uvwx")))}
    kept = [event for event in events if event.ts_ms > known.get(event.user, 0)]
    store = fold(events, [cut for cut in cuts if cut < len(events)], erased=erased(**known))
    expected = without_positions(fold(kept)) if kept else without_positions(MemoryStore())
    assert without_positions(store) == expected


def test_of_a_user_erased_later_nothing_stays_however_long_the_history():
    others = [Event("v", f"i{k % 7}", EPOCH_MS + k * MINUTE, event_id=f"v{k}", country="de") for k in range(20)]
    gone = [Event("u", f"i{k % 9}", EPOCH_MS + k * MINUTE, event_id=f"u{k}", price=k, country="de") for k in range(80)]
    assert without_positions(fold(gone + others, erased=erased(u=gone[-1].ts_ms))) == without_positions(fold(others))
    lane = Lane(SETTINGS, MemoryStore(), "g1", erased=erased(u=gone[-1].ts_ms))
    lane.open()
    stats = lane.apply(*batch_of(gone + others)).stats
    assert (stats.n_events, stats.n_erased) == (20, 80)
