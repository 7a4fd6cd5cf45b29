import os
import signal
import time

import pytest

from state.embedded_redis import EmbeddedRedis
from state.store.changes import NoChanges
from state.store.contract import MemoryStore
from state.store.redis_change_feed import PATIENCE_MS
from state.store.redis_store import RedisStore

WAIT_S = 5.0


class Clock:
    """Milliseconds of the real clock, ahead by as much as a test wants."""

    ahead_ms = 1_000

    def __call__(self):
        return time.monotonic_ns() // 1_000_000 + self.ahead_ms


@pytest.fixture
def redis(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        yield server


@pytest.fixture
def store(redis):
    store = RedisStore(redis.url)
    yield store
    store.close()


def poll_until(feed, clock, enough):
    """Poll until `enough(keys)` of what came so far; return the keys."""
    deadline, keys = time.monotonic() + WAIT_S, []
    while not enough(keys):
        assert time.monotonic() < deadline, keys
        keys += feed.poll(clock()) or ()
        time.sleep(0.005)
    return keys


def connected(store, clock, *prefixes):
    feed = store.changes(prefixes)
    feed.connect()
    assert feed.poll(clock()) is None  # nothing is known of what was before
    return feed


@pytest.mark.redis
def test_writes_with_the_prefixes_are_told_and_others_are_not(store):
    clock = Clock()
    feed = connected(store, clock, b"{a}i:", b"{b}i:")
    store.write({b"{a}i:1": b"x", b"{a}u:1": b"x", b"{b}i:2": b"x", b"{c}i:3": b"x"})
    assert set(poll_until(feed, clock, lambda keys: len(keys) >= 2)) == {b"{a}i:1", b"{b}i:2"}
    store.write({b"{a}i:1": None})
    assert poll_until(feed, clock, bool) == [b"{a}i:1"]


@pytest.mark.redis
def test_every_write_before_what_was_heard_has_been_told(store):
    clock = Clock()
    feed = connected(store, clock, b"i:")
    for n in range(20):
        store.write({b"i:%d" % n: b"x"})
        written_ms, told = clock(), set()
        clock.ahead_ms += 200  # the next poll may ask
        while feed.heard_ms <= written_ms:  # until a question is answered that was put after the write
            told |= set(feed.poll(clock()) or ())
        assert b"i:%d" % n in told


@pytest.mark.redis
def test_after_trouble_nothing_is_known_until_it_is_connected_again(redis, store):
    clock = Clock()
    feed = connected(store, clock, b"i:")
    poll_until(feed, clock, lambda _: feed.heard_ms > 0)
    redis.kill()
    deadline = time.monotonic() + WAIT_S
    while feed.poll(clock()) is not None:
        assert time.monotonic() < deadline
    assert feed.heard_ms == 0
    feed.connect()  # nobody is there
    assert (feed.poll(clock()), feed.heard_ms) == ([], 0)
    redis.start()
    feed.connect()
    assert feed.poll(clock()) is None
    store.write({b"i:9": b"x"})
    assert poll_until(feed, clock, bool) == [b"i:9"]


@pytest.mark.redis
def test_a_redis_that_does_not_answer_is_given_up(redis, store):
    clock = Clock()
    feed = connected(store, clock, b"i:")
    poll_until(feed, clock, lambda _: feed.heard_ms > 0)
    (pid,) = {info["process_id"] for info in [store._nodes.client_for(b"").info("server")]}
    os.kill(pid, signal.SIGSTOP)
    try:
        clock.ahead_ms += 1_000
        assert feed.poll(clock()) == []
        clock.ahead_ms += 1 + PATIENCE_MS
        assert feed.poll(clock()) is None
    finally:
        os.kill(pid, signal.SIGCONT)
    assert feed.heard_ms == 0


@pytest.mark.redis
def test_a_flushed_database_may_have_changed_every_key(store):
    clock = Clock()
    feed = connected(store, clock, b"i:")
    store._nodes.client_for(b"").flushall()
    deadline = time.monotonic() + WAIT_S
    while feed.poll(clock()) is not None:
        assert time.monotonic() < deadline
    assert feed.poll(clock()) == []


@pytest.mark.redis
def test_a_redis_that_refuses_leaves_a_feed_that_hears_nothing(redis, store):
    client = store._nodes.client_for(b"")
    client.execute_command("ACL", "SETUSER", "default", "-client|tracking")
    feed = store.changes([b"i:"])
    for _ in range(2):
        feed.connect()
        assert (feed.poll(10_000), feed.heard_ms) == ([], 0)


def test_a_store_that_cannot_tell_hears_nothing():
    feed = MemoryStore().changes([b"i:"])
    feed.connect()
    assert isinstance(feed, NoChanges)
    assert (feed.poll(1), feed.heard_ms) == ([], 0)
