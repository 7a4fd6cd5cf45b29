"""After an erasure no row of the user is left: in no generation, and for no anchor, whatever crashed before."""

import time

import numpy as np
import pytest
import redis

from batch.training.train_anchor import train_anchor
from flows.flow import Flow
from flows.log.contract import Message
from flows.log.open_log import open_log
from headrace.settings import Settings
from schemas.ids import hash_id
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.embedded_redis import EmbeddedRedis
from state.generations import new_generation
from state.rows import keys

pytestmark = pytest.mark.redis
REGISTRY, T0 = FolderRegistry(), 1_700_000_000_000
LEAVER, OTHER = hash_id("u3"), hash_id("u4")


class Shop:
    """A log, a Redis, and flows in this process."""

    def __init__(self, folder, server):
        self.settings = Settings(
            data_dir=folder, redis_url=server.url, flow_metrics_port=0, max_cached_users=1000, max_cached_items=1000,
            dedupe_window=2048, factors=4, als_iterations=2, anchor_tolerance=1.0,
        )  # fmt: skip
        self.log = open_log(self.settings.log_address)
        self.client = redis.Redis.from_url(server.url)
        rng = np.random.default_rng(5)
        for n in range(400):
            user = int(rng.integers(20))
            lines = [{"item": f"i{int(rng.integers(10)) * 2 + user % 2}", "quantity": 1.0}]
            self.append("purchases", {"event_id": f"e{n}", "ts_ms": T0 + n * 1000, "user": f"u{user}", "lines": lines})

        gone = {"event_id": "gone", "ts_ms": T0 + 450_000, "user": "u3", "item": "i1", "kind": "dislike"}
        self.append("user-events", gone)

    def append(self, topic, record):
        self.log.append([Message(topic, b"k", encode(topic, record, REGISTRY), record["ts_ms"])])

    def run(self, true, generation=None, of=None):
        """Run a flow until something is true of it, and end it."""
        flow = Flow(of or self.settings, generation)
        flow.begin()
        deadline = time.monotonic() + 60
        try:
            while not true(flow):
                assert time.monotonic() < deadline, "it did not happen in time"
                flow.handle(flow.poll())
        finally:
            flow.close()

    def folded(self, flow):
        flow.runner.drain()
        return all(lane.positions == self.log.end() for lane in flow.runner.lanes)

    def publish(self):
        version = train_anchor(self.settings, self.log, time.time_ns() // 1_000_000, force=True)["version"]
        self.client.set(keys.ANCHOR_PUBLISHED, version)
        return version

    def vectors(self, version, generation="g1"):
        return len(self.client.keys(keys.vector_prefix(keys.prefix(generation, 0), version) + b"*"))

    def is_live(self, version):
        return self.client.get(keys.ANCHOR_LIVE) == version.encode()

    def traces(self, user):
        """Return every key that names a user, by its hash in hex or as bytes, in its name or its value."""
        found = []
        words = b"%016x" % user, np.uint64(user).tobytes(), np.uint64(user).byteswap().tobytes()
        for key in self.client.scan_iter():
            value = self.client.dump(key) if self.client.type(key) != b"string" else self.client.get(key)
            found += [key] * any(word in key or word in value for word in words)
        return found


@pytest.fixture
def shop(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield Shop(tmp_path, server)


def test_vectors_of_an_anchor_are_removed_at_the_next_start_if_the_flow_died_after_the_switch(shop, monkeypatch):
    shop.run(shop.folded)
    first = shop.publish()
    shop.run(lambda _: shop.is_live(first))
    second = shop.publish()
    shop.run(lambda _: shop.is_live(second))  # ends before it is time to clean up
    assert (shop.vectors(first), shop.vectors(second)) == (20, 20)
    monkeypatch.setattr("flows.anchor_follower.CLEAN_UP_AFTER_MS", 0)
    shop.run(lambda _: shop.vectors(first) == 0)
    assert shop.vectors(second) == 20


def test_a_flow_that_was_paused_while_the_next_anchor_came_out_refolds_that_one(shop):
    two = shop.settings.model_copy(update={"n_lanes": 2, "generation": "two"})
    shop.run(shop.folded, of=two)
    first = shop.publish()
    flow = Flow(two)
    flow.begin()
    flow.handle(None)
    flow._follower._ready_keys.append(b"another lane")  # which is of a process that has seen only the second one
    while flow._follower.n_refolded < 20:
        flow.handle(flow.poll())
    assert not shop.is_live(first)
    second = shop.publish()
    shop.client.set("another lane", second)
    deadline = time.monotonic() + 60
    while not shop.is_live(second):
        assert time.monotonic() < deadline
        flow.handle(flow.poll())
    flow.close()


def test_after_an_erasure_nothing_in_redis_names_the_user(shop, monkeypatch):
    monkeypatch.setattr("flows.anchor_follower.CLEAN_UP_AFTER_MS", 0)
    shop.run(shop.folded)
    first = shop.publish()
    shop.run(lambda _: shop.is_live(first) and shop.vectors(first) == 20)
    base = shop.settings
    for name, n_lanes in (("live", 1), ("shadow", 3)):
        generation = new_generation(name, base.model_copy(update={"n_lanes": n_lanes}), T0)
        shop.client.set(keys.generation(name), generation.model_dump_json())
        shop.run(shop.folded, generation)
    shop.client.set(keys.GENERATION, "live")
    second = shop.publish()
    shop.run(lambda _: shop.is_live(second))
    names = {key.split(b":")[0] for key in shop.traces(LEAVER)}
    assert names == {b"{g1", b"{live", b"{shadow"}
    assert any(b"v:" + first.encode() in key for key in shop.traces(LEAVER))
    of_other = len(shop.traces(OTHER))
    shop.append("erasures", {"event_id": "x", "ts_ms": T0 + 500_000, "user": "u3"})
    shop.run(lambda flow: shop.folded(flow) and shop.vectors(first, "live") == 0)
    assert shop.traces(LEAVER) == []
    assert len(shop.traces(OTHER)) in (of_other, of_other - 1)  # but for the vector of the first anchor
