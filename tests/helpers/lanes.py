"""Lanes on a store in memory: fold events, read rows, draw streams of shopping."""

import itertools

import numpy as np
from hypothesis import strategies as st

from flows.fold.erased_users import EMPTY
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from helpers.fold_oracle import EPOCH_MS, Event, batch_of
from schemas.events import Kind
from schemas.ids import hash_id
from state.rows import keys, lane_rows
from state.rows.item_rows import decode_items, empty_items
from state.rows.user_rows import decode_users, empty_users
from state.store.contract import MemoryStore

SETTINGS = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048)
PREFIX = keys.prefix("g1", 0)
MINUTE = 60_000


def fold(events, cuts=(), settings=SETTINGS, store=None, crash=False, erased=EMPTY):
    """Fold events in batches that end at `cuts`; with `crash`, by a new lane for each batch."""
    store = store or MemoryStore()
    lane = Lane(settings, store, "g1", erased=erased)
    lane.open()
    bounds = sorted({0, *cuts, len(events)})
    for first, last in itertools.pairwise(bounds):
        if crash:
            lane = Lane(settings, store, "g1", erased=erased)
            lane.open()
        changes = lane.apply(*batch_of(events[first:last], first))
        store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    return store


def item_row(store, item, prefix=PREFIX):
    rows = empty_items(1)
    assert decode_items(store.read([keys.item(prefix, hash_id(item))]), np.array([0]), rows).all(), item
    return rows


def user_row(store, user):
    rows = empty_users(1)
    assert decode_users(store.read([keys.user(PREFIX, hash_id(user))]), np.array([0]), rows).all(), user
    return rows


def globals_of(store):
    return lane_rows.decode_globals(store.read([keys.lane_globals(PREFIX)])[0])


@st.composite
def shopping(draw, max_size=60, shuffled=False):
    """Events of a few users on a few items; sessions break, items repeat, and with `shuffled` events come late."""
    n = draw(st.integers(1, max_size))
    now = dict.fromkeys("uvw", EPOCH_MS)
    events = []
    for _ in range(n):
        user = draw(st.sampled_from("uvw"))
        now[user] += draw(st.sampled_from([1000, MINUTE, 29 * MINUTE, 31 * MINUTE]))
        kind = draw(st.sampled_from([Kind.VIEW, Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.DISLIKE]))
        item = draw(st.sampled_from("abcdef"))
        events.append(Event(user, item, now[user], kind, category="k" + "ab"[item > "c"], brand="x", country="de"))
    events = [event for user in "uvw" for event in [e for e in events if e.user == user][:50]]
    if shuffled:
        events = draw(st.permutations(events))
    return events
