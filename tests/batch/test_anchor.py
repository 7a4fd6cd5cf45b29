import time

import numpy as np
import pytest
from helpers.purchases import NOW, REGISTRY, purchase
from helpers.s3_server import S3Server

from batch.training.comparison import Refused
from batch.training.interactions import read_interactions
from batch.training.log_events import Reader
from batch.training.train_anchor import TooLittleData, train_anchor
from flows.anchor_follower import AnchorFollower
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.dead_letters import DeadLetters
from flows.log.sqlite_log import SqliteLog
from flows.runner import Intake, Runner
from headrace.cli.anchor import verdict
from headrace.settings import Settings
from schemas.avro_decoder import Limits
from schemas.ids import hash_id
from schemas.json_events import encode
from serving.retrieval.vector_index import VectorIndex
from state.anchor import AnchorDamaged, anchor_versions, load_anchor
from state.anchors.fetcher import AnchorFetcher
from state.anchors.open_anchors import open_anchors
from state.rows import keys
from state.rows.vector_rows import decode_vector
from state.store.contract import MemoryStore

pytestmark = pytest.mark.slow


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
    runner = Runner([Lane(lane_settings, store, "g1")], store, Intake(REGISTRY, Limits(), DeadLetters(log)))
    positions = runner.open()
    while (raw := log.read(positions, 64, 0)) is not None:
        runner.fold(raw)
        positions = raw.after
    runner.drain()
    summary = train_anchor(settings, log, NOW)
    assert (summary["events"], summary["items"], summary["users"]) == (400, 20, 20)
    store.write({keys.ANCHOR_PUBLISHED: summary["version"].encode()})
    follower = AnchorFollower(store, runner.lanes, "g1", 1, AnchorFetcher(open_anchors(settings)), runner.commit_now)
    follower.open()
    for _ in range(10):
        follower.step(NOW)
    assert store.rows[keys.ANCHOR_LIVE] == summary["version"].encode()
    index = VectorIndex.load(settings.anchors_dir / summary["version"])
    odd = {hash_id(f"i{n}") for n in range(1, 20, 2)}
    vector = decode_vector(store.rows[keys.vector(keys.prefix("g1", 0), summary["version"], hash_id("u3"))])
    best = index.search(vector, 5)[0].tolist()
    assert set(best) <= odd
    anchor = load_anchor(settings.anchors_dir / summary["version"])
    exact = anchor.item_hash[np.argsort(-(anchor.whitened @ vector), kind="stable")[:5]]
    assert best == exact.tolist()
    runner.close()


@pytest.mark.s3
def test_an_anchor_is_live_once_flow_and_server_have_copies_of_their_own(settings, log, tmp_path):
    with S3Server() as s3:
        remote = {"anchors_url": s3.address, "anchors_config": {"endpoint_url": s3.url}}

        def machine(name):
            return settings.model_copy(update={**remote, "data_dir": tmp_path / name})

        store = MemoryStore()
        lane_settings = LaneSettings(max_cached_users=100, max_cached_items=100, dedupe_window=2048)
        runner = Runner([Lane(lane_settings, store, "g1")], store, Intake(REGISTRY, Limits(), DeadLetters(log)))
        runner.fold(log.read(runner.open(), 400, 0))
        runner.drain()
        version = train_anchor(machine("trainer"), log, NOW)["version"]
        store.write({keys.ANCHOR_PUBLISHED: version.encode()})
        fetcher = AnchorFetcher(open_anchors(machine("flow")))
        follower = AnchorFollower(store, runner.lanes, "g1", 1, fetcher, runner.commit_now)
        follower.open()
        deadline = time.monotonic() + 120
        while store.rows.get(keys.ANCHOR_LIVE) != version.encode():
            assert time.monotonic() < deadline, "the anchor never went live"
            follower.step(NOW)
        assert VectorIndex.load(open_anchors(machine("server")).fetch(version)).version == version
        copies = [anchor_versions(tmp_path / name / "anchor-copies") for name in ("trainer", "flow", "server")]
        assert copies == [[version]] * 3
        runner.close()


def test_a_damaged_anchor_is_refused(settings, log):
    path = settings.anchors_dir / train_anchor(settings, log, NOW)["version"]
    (path / "metrics.json").write_text("{}")
    with pytest.raises(AnchorDamaged, match=r"metrics\.json"):
        load_anchor(path)


def test_an_empty_log_is_told(settings, tmp_path):
    with pytest.raises(TooLittleData, match="0 interactions"):
        train_anchor(settings, SqliteLog(tmp_path / "empty.sqlite"), NOW)


def view(n, user, item, ts_ms=NOW):
    record = {"event_id": f"e{n}", "ts_ms": ts_ms, "user": user, "item": item}
    return Message("product-views", b"", encode("product-views", record, REGISTRY), ts_ms)


@pytest.mark.parametrize(
    "messages",
    [
        [view(1, "u", "a"), view(2, "u", "b", NOW + 1000)], [view(1, "u", "a"), view(2, "u", "a", NOW + 1000)],
        [view(1, "u", "a"), view(2, "u", "b"), view(3, "u", "c")], [view(1, "u", "a")],
        [view(1, "u", "a"), view(2, "v", "a")],
    ],
    ids=["one visitor", "one item", "one moment", "one event", "two visitors of one item"],
)  # fmt: skip
def test_what_no_anchor_can_be_trained_on_is_told_in_one_line(settings, tmp_path, messages):
    log = SqliteLog(tmp_path / "few.sqlite")
    log.append(messages)
    with pytest.raises(TooLittleData, match=r"too little to train on: \d interactions .* of at least 2$"):
        train_anchor(settings, log, NOW + 2000)
    log.close()


def test_two_visitors_with_two_items_at_one_moment_get_an_anchor_without_a_measurement(settings, tmp_path):
    log = SqliteLog(tmp_path / "few.sqlite")
    log.append([view(1, "u", "a"), view(2, "v", "b")])
    metrics = train_anchor(settings, log, NOW)["metrics"]
    assert (metrics["predictions"], metrics["strategies"]) == (0, {})
    assert verdict(metrics).startswith("Published without a measurement")
    log.close()


@pytest.mark.parametrize("session_each", [True, False])
def test_an_anchor_comes_of_a_log_too_small_for_a_session_in_every_slice(settings, tmp_path, session_each):
    log, gap_ms = SqliteLog(tmp_path / "small.sqlite"), 7_200_000 if session_each else 1000
    for n in range(13):
        view = {"event_id": f"e{n}", "ts_ms": NOW + n * gap_ms, "user": f"u{n % 4}", "item": f"i{n * n % 5}"}
        log.append([Message("product-views", b"", encode("product-views", view, REGISTRY), view["ts_ms"])])
    summary = train_anchor(settings, log, NOW + 13 * gap_ms)
    assert summary["events"] == 13
    assert not summary["metrics"]["fit_kept"]
    assert load_anchor(settings.anchors_dir / summary["version"]).mixture is None
    log.close()


def test_a_night_knows_nothing_of_erased_users_but_what_they_did_since(log):
    def read():
        data = read_interactions(log, Reader(REGISTRY, NOW, Limits(), 5), LaneSettings().fold_params().weights)
        own = data.user_hash[data.user] == hash_id("u3")
        return len(data.weight) - own.sum(), [data.item_ids[item] for item in data.item[own]]

    of_others, own = read()
    assert len(own) > 5
    erasure = {"event_id": "x", "ts_ms": NOW, "user": "u3"}
    log.append([Message("erasures", b"", encode("erasures", erasure, REGISTRY), NOW)])
    for event_id in ("late", "e0"):  # e0 was there before: a duplicate
        lines = [{"item": "after", "quantity": 1.0}]
        record = {"event_id": event_id, "ts_ms": NOW + 900_000, "user": "u3", "lines": lines}
        log.append([Message("purchases", b"", encode("purchases", record, REGISTRY), NOW + 900_000)])
    assert read() == (of_others, ["after"])


@pytest.fixture
def wide_log(tmp_path):
    """Six tastes of fifty items each."""
    log = SqliteLog(tmp_path / "wide.sqlite")
    log.append([purchase(n, NOW + n * 1000) for n in range(4000)])
    yield log
    log.close()


def test_an_anchor_whose_lists_are_worse_than_the_live_ones_is_refused_unless_forced(settings, wide_log):
    log, settings = wide_log, settings.model_copy(update={"factors": 8})
    end_ms = NOW + 4_000_000
    good = train_anchor(settings, log, end_ms)["version"]
    poor = settings.model_copy(update={"als_iterations": 1, "als_regularization": 1e5})
    worse = rf"`collaborative` has HR@20 0\.\d+, with the live anchor {good} 0\.\d+ \(-\d+\.\d\d ± \d\.\d\d points\)"
    with pytest.raises(Refused, match=worse):
        train_anchor(poor, log, end_ms + 1000, live=good)
    forced = train_anchor(poor, log, end_ms + 2000, live=good, force=True)["metrics"]
    assert not forced["live"]["same_predictions"]
    assert forced["difference"]["collaborative"][0] < 0
    again = train_anchor(settings, log, end_ms + 3000, live=good)["metrics"]  # nothing new: the same again
    assert again["difference"]["hybrid"][0] == 0
    log.append([purchase(n, NOW + 5_000_000 + n * 1000) for n in range(5000, 6500)])
    both = train_anchor(settings, log, NOW + 12_000_000, live=good)["metrics"]
    assert both["live"]["same_predictions"]  # neither has learned from them
    assert f"the live one, {good}" in verdict(both)
    assert verdict(again).endswith("as that was measured when it was trained.")
    assert abs(both["difference"]["collaborative"][0]) < 0.1
    assert both["strategies"]["hybrid"]["HR@20"] > both["strategies"]["popular"]["HR@20"]


def test_an_anchor_carries_the_embedding_and_whether_the_fit_was_kept(settings, log):
    anchor = load_anchor(settings.anchors_dir / train_anchor(settings, log, NOW)["version"])
    assert anchor.embedding is not None
    assert anchor.embedding.shape == (20, 64)
    lengths = np.linalg.norm(anchor.embedding.astype(float), axis=1)
    assert np.all((lengths < 1.01) & ((lengths > 0.99) | (lengths == 0)))
    assert anchor.mixture is None  # 400 events are too few for a fit
