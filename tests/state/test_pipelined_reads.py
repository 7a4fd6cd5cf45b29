import pytest

from state.embedded_redis import EmbeddedRedis
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

pytestmark = pytest.mark.redis


@pytest.fixture
def store(server):
    store = RedisStore(server.url)
    store.write({b"a": b"1", b"b": b"2"})
    yield store
    store.close()


def drop_connections(server):
    for one in server.client().client_list():
        if one["cmd"] == "mget":
            server.client().client_kill_filter(_id=one["id"])


def test_a_reading_gives_its_own_values_whatever_is_read_before_it_is_called(store):
    first, second = store.begin_read([b"a", b"none"]), store.begin_read([b"b"])
    assert store.read([b"b", b"a"]) == [b"2", b"1"]
    assert second() == [b"2"]
    assert first() == [b"1", None]


def test_a_reading_that_nobody_calls_leaves_the_others_right(store):
    store.begin_read([b"a"])
    assert store.read([b"b"]) == [b"2"]


@pytest.mark.parametrize("n", [1, 1000])
def test_a_reading_whose_connection_is_lost_reads_again(store, server, n):
    assert store.read([b"a"]) == [b"1"]
    reading = store.begin_read([b"a"] * n)
    assert store.read([b"b"]) == [b"2"]
    later = store.begin_read([b"b", b"a"] * n)
    drop_connections(server)
    assert reading() == [b"1"] * n
    assert later() == [b"2", b"1"] * n
    assert store.read([b"a"]) == [b"1"]


def test_many_keys_are_read_by_several_commands_and_none_by_none(store):
    many, none, one = store.begin_read([b"a", b"b"] * 1000), store.begin_read([]), store.begin_read([b"b"])
    assert store.read([b"a"]) == [b"1"]
    assert many() == [b"1", b"2"] * 1000
    assert none() == []
    assert one() == [b"2"]


def test_without_redis_it_is_the_reading_that_fails(tmp_path):
    with EmbeddedRedis(tmp_path) as gone:
        store = RedisStore(gone.url, 1.0)
        assert store.read([b"a"]) == [None]
    for _ in range(2):
        reading = store.begin_read([b"a"])
        with pytest.raises(StoreUnavailable):
            reading()
    store.close()
