import itertools

import numpy as np
from helpers.fold_oracle import batch_of
from helpers.lanes import PREFIX, SETTINGS, shopping
from hypothesis import given
from hypothesis import strategies as st

from flows.fold import pending_vectors
from flows.fold.lane import Lane
from flows.fold.pending_vectors import PendingVectors
from schemas.events import Decoded, Erasure
from schemas.ids import hash_id
from state.anchor import Anchor
from state.rows import keys
from state.store.contract import MemoryStore


def anchor(version="a1"):
    items = np.sort(np.array([hash_id(item) for item in "abcdef"], np.uint64))
    whitened = np.random.default_rng(len(version)).normal(0, 0.3, (6, 4)).astype(np.float32)
    return Anchor(version, [], items, whitened, np.eye(4, dtype=np.float32), 2.0, SETTINGS.fold_params().weights)


def opened(store, *anchors):
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    lane.use_anchors(*anchors)
    return lane


def commit(store, changes):
    store.commit(PREFIX, changes.expected, changes.new, changes.rows)


def settle(store, lane, most=1000):
    for _ in range(most):
        if lane.owes_vectors:
            commit(store, lane.write_pending())


@given(
    shopping(),
    st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans(), st.integers(0, 3)), max_size=8),
)
def test_vectors_left_for_later_are_those_of_a_lane_that_never_was_behind(events, batches):
    """Each batch: where it ends, whether the lane is behind, whether it dies before, chunks settled after."""
    plain = MemoryStore()
    commit(plain, opened(plain, anchor()).apply(*batch_of(events, 0)))

    store, batches = MemoryStore(), {min(cut, len(events)): more for cut, *more in batches}
    batches.setdefault(len(events), (True, False, 0))
    lane = opened(store, anchor())
    for first, last in itertools.pairwise([0, *sorted(batches)]):
        behind, dies, settled = batches[last]
        if dies:
            lane = opened(store, anchor())
        if last > first:
            commit(store, lane.apply(*batch_of(events[first:last], first), behind=behind))
        settle(store, lane, settled)
    assert lane.owes_vectors == (keys.owes_vectors(PREFIX) in store.rows)
    settle(store, lane)
    assert not lane.owes_vectors
    assert store.rows == plain.rows


@given(shopping(max_size=10))
def test_a_lane_that_is_behind_writes_no_vectors_until_it_settles(events):
    store = MemoryStore()
    lane = opened(store, anchor())
    commit(store, lane.apply(*batch_of(events, 0), behind=True))
    vectors = {keys.vector(PREFIX, "a1", hash_id(event.user)) for event in events}
    assert not vectors & set(store.rows)
    settle(store, lane)
    assert vectors <= set(store.rows)


@given(shopping(max_size=10))
def test_while_an_anchor_is_refolded_nobody_is_left_for_later(events):
    store = MemoryStore()
    lane = opened(store, anchor("a1"), anchor("a22"))
    commit(store, lane.apply(*batch_of(events, 0), behind=True))
    assert not lane.owes_vectors
    assert {keys.vector(PREFIX, version, hash_id(events[0].user)) for version in ("a1", "a22")} <= set(store.rows)


@given(shopping(max_size=10), st.booleans())
def test_an_erased_user_gets_no_vector_afterwards(events, dies):
    store = MemoryStore()
    lane = opened(store, anchor())
    commit(store, lane.apply(*batch_of(events, 0), behind=True))
    gone = events[0].user
    columns, raw = batch_of(events[:1], len(events))
    erasure = Decoded(columns.interactions[:0], erasures=[Erasure(0, gone, events[-1].ts_ms)])
    commit(store, lane.apply(erasure, raw))
    if dies:
        lane = opened(store, anchor())
    settle(store, lane)
    assert keys.vector(PREFIX, "a1", hash_id(gone)) not in store.rows
    assert keys.user(PREFIX, hash_id(gone)) not in store.rows


def test_of_more_users_than_it_remembers_it_owes_everybody(monkeypatch):
    monkeypatch.setattr(pending_vectors, "MOST", 10)
    owed = PendingVectors()
    owed.add(np.arange(8, dtype=np.uint64))
    owed.add(np.arange(4, 9, dtype=np.uint64))
    everybody, chunks = owed.take()
    assert not everybody
    assert np.concatenate(chunks).tolist() == list(range(9))
    assert not owed
    owed.add(np.arange(30, dtype=np.uint64))
    assert owed
    assert owed.take() == (True, [])


@given(shopping(), st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans(), st.booleans()), max_size=6))
def test_a_lane_whose_live_anchor_comes_late_ends_with_the_vectors_of_one_that_had_it(events, batches):
    """Each batch: where it ends, whether the anchor is there, whether the lane is behind, whether it dies before."""
    plain, store = MemoryStore(), MemoryStore()
    commit(plain, opened(plain, anchor()).apply(*batch_of(events, 0)))
    batches = {min(cut, len(events)): more for cut, *more in batches}
    batches.setdefault(len(events), (False, False, False))
    lane, waits = opened(store), True
    lane.use_anchors(others=["a1"], live_is_missing=True)
    for first, last in itertools.pairwise([0, *sorted(batches)]):
        here, behind, dies = batches[last]
        if dies:
            lane, waits = opened(store), True
            lane.use_anchors(others=["a1"], live_is_missing=True)
        if here and waits:
            lane.use_anchors(anchor(), others=["a1"])
            waits = False
        if last > first:
            commit(store, lane.apply(*batch_of(events[first:last], first), behind=behind))
        assert not (waits and lane.owes_vectors)
        settle(store, lane, 1)
    lane.use_anchors(anchor(), others=["a1"])
    settle(store, lane)
    assert not lane.owes_vectors
    assert store.rows == plain.rows


@given(shopping(max_size=20))
def test_a_lane_that_loses_its_anchor_with_vectors_owed_owes_them_to_everybody(events):
    store = MemoryStore()
    lane = opened(store, anchor())
    commit(store, lane.apply(*batch_of(events, 0), behind=True))
    lane.use_anchors(others=["a1"], live_is_missing=True)
    lane.use_anchors(anchor(), others=["a1"])
    settle(store, lane)
    plain = MemoryStore()
    commit(plain, opened(plain, anchor()).apply(*batch_of(events, 0)))
    assert store.rows == plain.rows
