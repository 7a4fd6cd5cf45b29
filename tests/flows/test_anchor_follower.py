"""An anchor switch while lanes move between machines: the live anchor always has the vectors of every user."""

import time

import numpy as np
import pytest
from helpers.purchases import NOW, REGISTRY

from flows.anchor_follower import CLEAN_UP_AFTER_MS, AnchorFollower
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.dead_letters import DeadLetters
from flows.log.sqlite_log import SqliteLog
from flows.runner import Intake, Runner
from schemas.avro_decoder import Limits
from schemas.ids import hash_id
from schemas.json_events import encode
from state.anchor import Anchor, save_anchor
from state.anchors.fetcher import AnchorFetcher
from state.anchors.folder_anchors import FolderAnchors
from state.rows import keys
from state.store.contract import MemoryStore

LANE = LaneSettings(n_lanes=2, max_cached_users=100, max_cached_items=100, dedupe_window=2048)


class Shop:
    """Two lanes with users, and a store of anchors."""

    def __init__(self, folder):
        self.log, self.store, self.n = SqliteLog(folder / "log.sqlite"), MemoryStore(), 0
        self.anchors = FolderAnchors(folder / "anchors")
        self.lanes = [Lane(LANE, self.store, "g1", 0), Lane(LANE, self.store, "g1", 1)]
        intake = Intake(REGISTRY, Limits(), DeadLetters(self.log))
        self.runner = Runner(self.lanes, self.store, intake)
        self.positions = self.runner.open()

    def fold(self, stream, records):
        for record in records:
            self.n += 1
            whole = {"event_id": f"e{self.n}", "ts_ms": NOW + self.n, **record}
            self.log.append([Message(stream, b"", encode(stream, whole, REGISTRY), NOW + self.n)])
        while (raw := self.log.read(self.positions, 400, 0)) is not None:
            self.runner.fold(raw)
            self.positions = raw.after
        self.runner.drain()

    def buy(self, *users):
        self.fold("purchases", [{"user": user, "lines": [{"item": "a", "quantity": 1.0}]} for user in users])

    def write_anchor(self, version):
        items = np.sort(np.array([hash_id(item) for item in "abc"], np.uint64))
        one = np.eye(3, dtype=np.float32)
        anchor = Anchor(version, list("abc"), items, one, one, 2.0, LANE.fold_params().weights)
        save_anchor(self.anchors.folder, anchor, lambda path: path.write_bytes(b"index"), {}, {})

    def machine(self, lanes, anchors):
        follower = AnchorFollower(self.store, lanes, "g1", 2, AnchorFetcher(anchors), self.runner.commit_now)
        follower.open()
        return follower

    def vectors(self, version):
        return {
            (lane.prefix, keys.hash_of(key))
            for lane in self.lanes
            for key in self.store.rows
            if key.startswith(keys.vector_prefix(lane.prefix, version))
        }

    def users(self):
        return {
            (lane.prefix, keys.hash_of(key))
            for lane in self.lanes
            for key in self.store.rows
            if key.startswith(keys.user_prefix(lane.prefix))
        }


class Downloading(FolderAnchors):
    """A machine whose download takes until `done`."""

    done = False

    def here(self, version):
        return super().here(version) if self.done else None

    def fetch(self, version):
        while not self.done:
            time.sleep(0.01)
        return super().fetch(version)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    shop.buy(*(f"u{n}" for n in range(20)))
    shop.write_anchor("a1")
    shop.store.write({keys.ANCHOR_PUBLISHED: b"a1"})
    yield shop
    shop.runner.close()
    shop.log.close()


def test_a_lane_that_moves_to_a_machine_that_still_downloads_is_refolded_there(shop):
    lane, other = shop.lanes
    first = shop.machine([lane], shop.anchors)
    for _ in range(10):
        first.step(NOW)
    assert shop.store.rows[keys.anchor_ready(lane.prefix)] == b"a1"
    refolded = shop.vectors("a1")
    assert refolded

    slow = Downloading(shop.anchors.folder)
    second = shop.machine([lane], slow)
    for after_ms in (0, CLEAN_UP_AFTER_MS, 2 * CLEAN_UP_AFTER_MS):
        second.step(NOW + after_ms)
    assert shop.vectors("a1") == refolded
    shop.buy("later", "u3")
    shop.fold("erasures", [{"user": "u1"}, {"user": "u2"}, {"user": "u4"}])

    first = shop.machine([other], shop.anchors)
    for _ in range(10):
        first.step(NOW)
    assert keys.ANCHOR_LIVE not in shop.store.rows
    slow.done = True
    deadline = time.monotonic() + 60
    while keys.ANCHOR_LIVE not in shop.store.rows:
        assert time.monotonic() < deadline, "the anchor never went live"
        second.step(NOW)
        time.sleep(0.01)
    for after_ms in (0, CLEAN_UP_AFTER_MS, 2 * CLEAN_UP_AFTER_MS):
        first.step(NOW + after_ms)
        second.step(NOW + after_ms)
    assert shop.vectors("a1") == shop.users()


def test_vectors_of_anchors_neither_live_nor_published_are_removed(shop):
    follower = shop.machine(shop.lanes, shop.anchors)
    shop.write_anchor("a2")
    for version in ("a1", "a2"):
        shop.store.write({keys.ANCHOR_PUBLISHED: version.encode()})
        for _ in range(10):
            follower.step(NOW)
        assert shop.store.rows[keys.ANCHOR_LIVE] == version.encode()
        assert shop.vectors(version) == shop.users()
    for after_ms in (0, CLEAN_UP_AFTER_MS, 2 * CLEAN_UP_AFTER_MS):
        follower.step(NOW + after_ms)
    assert shop.vectors("a1") == set()
    assert shop.vectors("a2") == shop.users()
