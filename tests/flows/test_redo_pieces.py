"""A redo record brings about the rows of its commit, from whatever part of them is already stored."""

import numpy as np
import pytest
from helpers.fold_oracle import EPOCH_MS, Event, batch_of
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from schemas.events import Kind
from state.embedded_redis import EmbeddedRedis
from state.store.contract import MemoryStore
from state.store.redis_store import RedisStore
from state.store.redo_pieces import RowsDoNotFit, commands_of, redo_pieces
from state.store.row_deltas import FULL_ROW

SMALL = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048, neighbours=3, lateness_ms=10**12)
LARGE = LaneSettings(max_cached_users=4000, max_cached_items=4000, dedupe_window=2048)


def written_by(pieces, stored):
    """Return the rows that the pieces write over what is stored; read from the commands as Redis gets them."""
    rows = {}
    for piece in pieces:
        for command in commands_of(piece, lambda keys: [stored.get(key) for key in keys]):
            words = b"".join(command).split(b"\r\n", 1)
            count, rest, args = int(words[0][1:]), words[1], []
            for _ in range(count):
                size, _, rest = rest.partition(b"\r\n")
                args.append(rest[: int(size[1:])])
                rest = rest[int(size[1:]) + 2 :]
            if args[0] == b"MSET":
                rows |= zip(args[1::2], args[2::2], strict=True)
            else:
                rows |= dict.fromkeys(args[1:])
    return rows


@st.composite
def batches(draw):
    """Batches of two users' events, some late, on items enough to fill rows, cut neighbours and bring them back."""
    found = []
    for batch in range(draw(st.integers(1, 6))):
        now, events = EPOCH_MS + batch * 3_600_000, []
        for _ in range(draw(st.integers(1, 30))):
            now += draw(st.sampled_from([1000, 60_000, -60_000, 31 * 60_000]))
            kind = draw(st.sampled_from([Kind.VIEW, Kind.VIEW, Kind.PURCHASE, Kind.DISLIKE]))
            events.append(Event(draw(st.sampled_from("uv")), draw(st.sampled_from("abcdefghijkl")), now, kind))
        found.append(events)
    return found


@given(batches(), st.data())
def test_the_pieces_write_the_rows_of_the_commit_whatever_of_them_is_stored(batches, data):
    store, offset = MemoryStore(), 0
    lane = Lane(SMALL, store, "g1")
    lane.open()
    for events in batches:
        changes = lane.apply(*batch_of(events, offset))
        offset += len(events)
        pieces = [b"".join(piece) for piece in redo_pieces(changes.rows)]
        stored = dict(store.rows)
        for key in data.draw(st.lists(st.sampled_from(sorted(changes.rows)), unique=True)):
            if changes.rows[key] is not None:
                stored[key] = changes.rows[key]
        assert written_by(pieces, stored) == dict(changes.rows)
        store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        assert written_by(pieces, store.rows) == dict(changes.rows)


def shop(lane, store, rng, n_batches, commit):
    """Fold batches of views of 1,000 users and 500 items; return the last one's changes."""
    offset = 0
    for batch in range(n_batches):
        events = [
            Event(f"u{rng.integers(1000)}", f"i{rng.integers(500)}", EPOCH_MS + (offset + n) * 50, Kind.VIEW)
            for n in range(3000)
        ]
        changes = lane.apply(*batch_of(events, offset))
        offset += len(events)
        if commit or batch < n_batches - 1:
            store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    return changes


def test_of_full_rows_the_differences_are_a_fraction():
    store = MemoryStore()
    lane = Lane(LARGE, store, "g1")
    lane.open()
    changes = shop(lane, store, np.random.default_rng(1), 25, commit=True)
    users, items = changes.rows.blocks[1], changes.rows.blocks[0]
    assert (users.differences.checks != FULL_ROW).mean() > 0.9
    assert (items.differences.checks != FULL_ROW).any()
    assert users.differences.ends[-1] < 0.5 * users.ends[-1]


@pytest.mark.parametrize("table", [0, 1])
def test_a_row_changed_by_something_else_is_found_out(table):
    store = MemoryStore()
    lane = Lane(LARGE, store, "g1")
    lane.open()
    changes = shop(lane, store, np.random.default_rng(1), 12, commit=False)
    pieces = [b"".join(piece) for piece in redo_pieces(changes.rows)]
    assert written_by(pieces, store.rows) == dict(changes.rows)
    block = changes.rows.blocks[table]
    key = list(dict(block.items()))[int(np.flatnonzero(block.differences.checks != FULL_ROW)[0])]
    # The first id behind the header: an event the user does not have, a neighbour the item does not have.
    at = 224 if table == 1 else 136
    store.rows[key] = store.rows[key][:at] + b"\1" + store.rows[key][at + 1 :]
    with pytest.raises(RowsDoNotFit, match="headrace replay"):
        written_by(pieces, store.rows)


@pytest.mark.redis
def test_a_commit_cut_off_after_its_commit_point_is_finished_by_the_next_owner(tmp_path):
    server = EmbeddedRedis(tmp_path)
    with server:
        memory, store = MemoryStore(), RedisStore(server.url)
        for into in (memory, store):
            lane = Lane(LARGE, into, "g1")
            lane.open()
            changes = shop(lane, into, np.random.default_rng(2), 12, commit=False)
        memory.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        connection = store._commits._lane(lane.prefix).main
        connection.expect(changes.expected)
        redo = store._commits._write_redo(lane.prefix, changes.expected, changes.new, changes.rows)
        connection.expect(changes.expected, redo.record)
        some = next(iter(changes.rows.commands()))
        connection.execute(some)  # one command of those to be applied, and then the owner is gone
        store.close()
        heir = RedisStore(server.url)
        assert heir.positions(lane.prefix) == changes.new
        left = [key for keys in heir.scan(lane.prefix) for key in keys]
        assert dict(zip(left, heir.read(left), strict=True)) == memory.rows
        heir.close()
