import pytest
import redis

from state.rows import keys
from state.store.redis_store import RedisStore

pytestmark = pytest.mark.redis
KEY = keys.owner(keys.prefix("g1", 0))


def test_a_lease_is_renewed_and_given_back_by_one_script_each_so_that_nobody_comes_between(server):
    client, store = redis.Redis.from_url(server.url), RedisStore(server.url)

    def scripts():
        return client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]

    assert store.acquire(KEY, "a", 100_000)
    assert store.acquire(KEY, "a", 1_000)
    assert client.pttl(KEY) <= 1_000
    before = scripts()
    assert store.acquire(KEY, "a", 100_000)
    assert client.pttl(KEY) > 1_000
    assert scripts() == before + 1
    assert not store.acquire(KEY, "b", 1_000)
    store.release(KEY, "b")
    assert client.get(KEY) == b"a"
    before = scripts()
    store.release(KEY, "a")
    assert scripts() == before + 1
    assert client.get(KEY) is None
    store.release(KEY, "a")
    assert store.acquire(KEY, "b", 1_000)
    store.close()
