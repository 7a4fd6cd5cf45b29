import numpy as np
import pytest

from serving.snapshot.item_cache import ItemCache
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.rows.item_rows import MAX_NEIGHBOURS, empty_items, encode_items
from state.store.redis_store import RedisStore

PREFIX, AGE_MS = keys.prefix("g1", 0), 1_000
ITEMS = np.arange(1, 6, dtype=np.uint64)


class CountingStore(RedisStore):
    n_read = 0

    def read(self, keys):
        self.n_read += len(keys)
        return super().read(keys)


@pytest.fixture
def store(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        store = CountingStore(server.url)
        yield store
        store.close()


def put(store, item, support, near=()):
    rows = empty_items(1)
    rows["support"], rows["n"] = support, len(near)
    rows["neighbour"][0, : len(near)] = near
    store.write({keys.item(PREFIX, item): encode_items(rows, np.array([0]))[0]})


def cache_of(store, connect=True):
    feed = store.changes([keys.item_prefix(PREFIX)])
    if connect:
        feed.connect()
    return ItemCache(100, [PREFIX], feed), feed


def heard(cache, feed, now_ms):
    """Let the cache follow until the feed has told everything written before `now_ms`; return the moment after."""
    while feed.heard_ms <= now_ms:
        cache.follow(now_ms + 200)
        cache.follow(now_ms + 400)
    return now_ms + 400


def support(cache, item):
    return int(cache.rows["support"][cache.slots.find(np.array([item], np.uint64))[0]])


@pytest.mark.redis
def test_rows_that_nobody_wrote_are_not_read_again(store):
    cache, feed = cache_of(store)
    put(store, 1, 10)
    put(store, 2, 20)
    now = heard(cache, feed, 10_000)
    cache.ensure(store, ITEMS, now, AGE_MS)
    assert store.n_read == len(ITEMS)
    for _ in range(3):  # ages pass; one row is written
        put(store, 2, support(cache, 2) + 1)
        now = heard(cache, feed, now + 5 * AGE_MS)
        before = store.n_read
        cache.ensure(store, ITEMS, now, AGE_MS)
        assert store.n_read == before + 1
    assert (support(cache, 1), support(cache, 2)) == (10, 23)


@pytest.mark.redis
def test_a_row_that_was_written_is_read_again_only_when_it_is_old(store):
    cache, feed = cache_of(store)
    put(store, 1, 10)
    now = heard(cache, feed, 10_000)
    cache.ensure(store, ITEMS, now, AGE_MS)
    put(store, 1, 11)
    now = heard(cache, feed, now)
    cache.ensure(store, ITEMS, now, AGE_MS)
    assert support(cache, 1) == 10
    cache.ensure(store, ITEMS, now + AGE_MS, AGE_MS)
    assert support(cache, 1) == 11


@pytest.mark.redis
@pytest.mark.parametrize("connect", [False, True])
def test_rows_grow_old_where_nothing_was_heard(store, connect):
    cache, _ = cache_of(store, connect)
    put(store, 1, 10)
    cache.ensure(store, ITEMS, 10_000, AGE_MS)
    put(store, 1, 11)
    cache.ensure(store, ITEMS, 10_000 + AGE_MS, AGE_MS)
    assert support(cache, 1) == 10
    cache.ensure(store, ITEMS, 10_001 + AGE_MS, AGE_MS)
    assert support(cache, 1) == 11


@pytest.mark.redis
def test_neighbours_are_looked_at_when_a_row_was_read_and_when_they_may_be_old(store):
    cache, _ = cache_of(store, connect=False)
    near = np.arange(10, 10 + MAX_NEIGHBOURS, dtype=np.uint64)
    put(store, 1, 10, near)
    for now, expected in (
        (10_000, 1 + MAX_NEIGHBOURS), (10_000 + AGE_MS, 0), (10_001 + AGE_MS, 1 + MAX_NEIGHBOURS), (10_002 + AGE_MS, 0),
    ):  # fmt: skip
        before = store.n_read
        cache.ensure(store, ITEMS[:1], now, AGE_MS)
        cache.ensure_near(store, ITEMS[:1], now, AGE_MS)
        assert store.n_read - before == expected, now


@pytest.mark.redis
def test_stale_rows_come_in_turn(store):
    cache, feed = cache_of(store)
    for item in ITEMS:
        put(store, int(item), 1)
    now = heard(cache, feed, 10_000)
    cache.ensure(store, ITEMS, now, AGE_MS)
    assert not len(cache.stale(9, now + 1))
    for item in ITEMS[:4]:
        put(store, int(item), 2)
    later = heard(cache, feed, now + 1_000)
    assert not len(cache.stale(9, now))  # they were read at that moment
    assert [cache.stale(3, now + 1).tolist() for _ in range(3)] == [[1, 2, 3], [4], [1, 2, 3]]
    cache.ensure(store, ITEMS[:3], later, 0)
    assert [support(cache, item) for item in ITEMS] == [2, 2, 2, 1, 1]
    assert [cache.stale(3, later).tolist() for _ in range(2)] == [[4], [4]]
