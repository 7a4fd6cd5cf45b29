import numpy as np
import pytest

from batch.anchor_cmd import TooLittleData, train_anchor
from flows.anchor_follower import AnchorFollower
from flows.dead_letters import DeadLetters
from flows.lane import Lane, LaneSettings
from flows.log import Message
from flows.runner import Runner
from flows.sqlite_log import SqliteLog
from schemas.decode import Limits
from schemas.encode import encode
from schemas.ids import hash_id
from schemas.registry import FolderRegistry
from serving.retrieval import VectorIndex
from state import keys
from state.anchor import AnchorDamaged, load_anchor
from state.settings import Settings
from state.store import MemoryStore
from state.vector_rows import decode_vector

NOW = 1_700_000_000_000
REGISTRY = FolderRegistry()


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path, factors=4, als_iterations=5, als_threads=1)


@pytest.fixture
def log(tmp_path):
    """Two tastes: even users buy even items, odd users odd ones."""
    log = SqliteLog(tmp_path / "log.sqlite")
    rng = np.random.default_rng(1)
    for n in range(400):
        user = int(rng.integers(20))
        item = int(rng.integers(10)) * 2 + user % 2
        lines = [{"item": f"i{item}", "quantity": 1.0}]
        record = {"event_id": f"e{n}", "ts_ms": NOW + n * 1000, "user": f"u{user}", "lines": lines}
        log.append([Message("purchases", b"", encode("purchases", record, REGISTRY), NOW + n)])
    yield log
    log.close()


def test_an_anchor_is_trained_refolded_and_goes_live_without_losing_a_user(settings, log):
    store = MemoryStore()
    lane_settings = LaneSettings(max_cached_users=100, max_cached_items=100, dedupe_window=2048)
    runner = Runner([Lane(lane_settings, store, "g1")], store, REGISTRY, DeadLetters(log), Limits())
    positions = runner.open()
    while (raw := log.read(positions, 64, 0)) is not None:
        runner.fold(raw)
        positions = raw.after
    runner.drain()
    summary = train_anchor(settings, log, NOW)
    assert (summary["events"], summary["items"], summary["users"]) == (400, 20, 20)
    store.write({keys.ANCHOR_PUBLISHED: summary["version"].encode()})
    follower = AnchorFollower(store, runner.lanes, "g1", 1, settings.anchors_dir, runner.commit_now)
    follower.open()
    for _ in range(10):
        follower.step(NOW)
    assert store.rows[keys.ANCHOR_LIVE] == summary["version"].encode()
    index = VectorIndex.load(settings.anchors_dir / summary["version"])
    odd = {hash_id(f"i{n}") for n in range(1, 20, 2)}
    vector = decode_vector(store.rows[keys.vector(keys.prefix("g1", 0), summary["version"], hash_id("u3"))])
    best = [item for item, _ in index.search(vector, 5)]
    assert set(best) <= odd
    anchor = load_anchor(settings.anchors_dir / summary["version"])
    exact = anchor.item_hash[np.argsort(-(anchor.whitened @ vector), kind="stable")[:5]]
    assert best == exact.tolist()
    runner.close()


def test_a_damaged_anchor_is_refused(settings, log):
    path = settings.anchors_dir / train_anchor(settings, log, NOW)["version"]
    (path / "metrics.json").write_text("{}")
    with pytest.raises(AnchorDamaged, match=r"metrics\.json"):
        load_anchor(path)


def test_an_empty_log_is_told(settings, tmp_path):
    with pytest.raises(TooLittleData, match="0 interactions"):
        train_anchor(settings, SqliteLog(tmp_path / "empty.sqlite"), NOW)
