import numpy as np
import pytest
from helpers.item_merge_oracle import add_row, sum_popularity
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.snapshot.item_cache import ItemCache
from state.rows import keys, lane_rows
from state.rows.decay import MOST_SUM
from state.rows.item_merge import add_rows
from state.rows.item_rows import ITEM_DTYPE, MAX_NEIGHBOURS, empty_items, encode_items
from state.store.changes import NoChanges
from state.store.contract import MemoryStore

ITEMS = 9


def random_rows(rng, n_rows, n_ids, most_weight):
    rows = empty_items(n_rows)
    for row in rows:
        n = int(rng.integers(0, min(MAX_NEIGHBOURS, n_ids) + 1))
        row["n"], row["neighbour"][:n] = n, np.sort(rng.choice(np.arange(1, n_ids + 1), n, replace=False))
        row["weight"][:, :n] = rng.integers(0, most_weight, (3, n))
        row["flags"], row["price"], row["category"], row["brand"] = rng.integers(0, 4, 4)
        row["first_ms"], row["support"], row["count"] = rng.integers(0, 1000, 3)
        row["total"], row["kinds"], row["repeat"] = (rng.integers(0, 1000, n) for n in (3, 3, 4))
        row["pop_epoch"] = rng.integers(5, 9, 2)
        row["pop"] = rng.integers(-100, 100, (2, 2)) * rng.choice([1, MOST_SUM // 150])
    return rows


@pytest.mark.parametrize("lanes", [2, 4])
@given(st.integers(0, 2**32), st.sampled_from([20, 60, 90, 1000]), st.sampled_from([2, 50, 2**32 - 1]))
@settings(max_examples=60, deadline=None)
def test_rows_of_lanes_add_up_as_in_plain_python(lanes, seed, n_ids, most_weight):
    rng = np.random.default_rng(seed)
    rows, parts = (random_rows(rng, n, n_ids, most_weight) for n in (ITEMS, (lanes - 1) * ITEMS))
    there, slots, expected = rng.random(len(parts)) < 0.8, rng.permutation(ITEMS), rows.copy()
    for k in np.flatnonzero(there):
        add_row(expected[slots[k % ITEMS]], parts[k])
    add_rows(rows, slots, parts, there)
    for name in ITEM_DTYPE.names:
        assert np.array_equal(rows[name], expected[name]), name


@pytest.mark.parametrize("lanes", [2, 4])
def test_a_cache_adds_up_what_the_lanes_have_stored(lanes):
    rng = np.random.default_rng(lanes)
    prefixes, store, ids = [keys.prefix("g1", lane) for lane in range(lanes)], MemoryStore(), np.arange(1, 20)
    stored = [random_rows(rng, len(ids), 60, 1000) for _ in prefixes]
    absent = rng.random((lanes, len(ids))) < 0.2
    for prefix, rows, gone in zip(prefixes, stored, absent, strict=True):
        values = encode_items(rows, np.arange(len(ids)))
        store.write({keys.item(prefix, int(ids[k])): values[k] for k in np.flatnonzero(~gone)})
    cache = ItemCache(50, prefixes, NoChanges())
    cache.ensure(store, ids.astype(np.uint64), 1, 0)
    for k, slot in enumerate(cache.slots.find(ids.astype(np.uint64)).tolist()):
        expected = empty_items(1)[0] if absent[0, k] else stored[0][k]
        for lane in range(1, lanes):
            if not absent[lane, k]:
                add_row(expected, stored[lane][k])
        n = int(expected["n"])
        for name in ("support", "count", "total", "kinds", "repeat", "pop", "pop_epoch", "n", "flags", "category"):
            assert np.array_equal(cache.rows[name][slot], expected[name]), name
        assert np.array_equal(cache.rows["neighbour"][slot, :n], expected["neighbour"][:n])
        assert np.array_equal(cache.rows["weight"][slot, :, :n], expected["weight"][:, :n])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-99, 99), st.integers(-99, 99)), min_size=1, max_size=4))
def test_the_globals_of_lanes_add_up_to_the_newest_epoch(parts):
    vectors = np.arange(len(parts) * lane_rows.SIZE).reshape(len(parts), -1)
    for vector, one in zip(vectors, parts, strict=True):
        vector[lane_rows.POP : lane_rows.POP + 3] = vector[lane_rows.POP + 3 : lane_rows.POP + 6] = one
    found = lane_rows.sum_globals([lane_rows.encode_globals(vector) for vector in vectors])
    decayed = np.arange(lane_rows.POP, lane_rows.POP + 6)
    assert found[decayed].tolist() == [*sum_popularity(parts)] * 2
    assert np.array_equal(np.delete(found, decayed), np.delete(vectors.sum(axis=0), decayed))
