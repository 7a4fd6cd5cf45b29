"""What a flow keeps when something it needs is away for a while."""

import pytest

from flows.flow import Flow
from flows.log.contract import LogUnavailable, Message
from flows.log.open_log import open_log
from headrace.settings import Settings
from schemas.json_events import encode
from schemas.registry import FolderRegistry, RegistryUnavailable
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.store.contract import Fenced, StoreUnavailable, decode_positions

pytestmark = pytest.mark.redis
REGISTRY, T0 = FolderRegistry(), 1_700_000_000_000
PREFIX = keys.prefix("g1", 0)


def append_views(log, first, n):
    for k in range(first, first + n):
        record = {"event_id": f"e{k}", "ts_ms": T0 + k * 1000, "user": f"u{k % 10}", "item": f"i{k % 7}"}
        log.append([Message("product-views", b"k", encode("product-views", record, REGISTRY), T0 + k)])


def fold_all(flow, n):
    while flow.runner.lanes[0].positions.get("product-views:0", 0) < n:
        flow.handle(flow.poll())
    flow.runner.drain()


@pytest.fixture
def flow_at_rest(tmp_path):
    settings = Settings(
        data_dir=tmp_path, flow_metrics_port=0, max_cached_users=1000, max_cached_items=1000, dedupe_window=2048
    )
    log = open_log(settings.log_address)
    append_views(log, 0, 50)
    with EmbeddedRedis(tmp_path / "redis") as server:
        flow = Flow(settings.model_copy(update={"redis_url": server.url}))
        flow.appending = log
        yield flow
        flow.close()
    log.close()


@pytest.fixture
def flow(flow_at_rest):
    flow_at_rest.begin()
    fold_all(flow_at_rest, 50)
    return flow_at_rest


def reads_of_users(flow, n):
    """Fold `n` events more; return how many user rows were read from Redis for it."""
    at = flow.runner.lanes[0].positions["product-views:0"]
    append_views(flow.appending, at, n)
    before, apply = [], flow.runner.apply
    flow.runner.apply = lambda block: before.append(apply(block)) or before[-1]
    fold_all(flow, at + n)
    flow.runner.apply = apply
    return sum(stats.cache["users"][1] for report in before for stats in report.stats)


@pytest.mark.parametrize("error", [LogUnavailable("away"), RegistryUnavailable("away")])
def test_an_outage_of_the_log_leaves_a_lane_its_memory(flow, error):
    lane = flow.runner.lanes[0]
    flow.recover(error)
    assert flow.runner.lanes == [lane]
    assert reads_of_users(flow, 20) == 0
    assert decode_positions(flow.store.read([keys.positions(PREFIX)])[0]) == lane.positions


@pytest.mark.parametrize("error", [Fenced("another"), StoreUnavailable("away")])
def test_after_another_owner_or_an_outage_of_redis_everything_is_read_again(flow, error):
    flow.recover(error)
    assert reads_of_users(flow, 20) == 10


def test_what_was_folded_and_not_committed_is_folded_again_after_an_outage_of_the_log(flow):
    lane = flow.runner.lanes[0]
    lane.positions = {**lane.positions, "product-views:0": 60}  # as if the commit of a batch had not begun
    flow.recover(LogUnavailable("away"))
    assert flow.runner.lanes != [lane]
    assert flow.runner.lanes[0].positions["product-views:0"] == 50


def away_once(log, monkeypatch):
    """Let the log be away the next time a flow opens."""
    answer = log.topic_ids

    def refuse():
        monkeypatch.setattr(log, "topic_ids", answer)
        raise LogUnavailable("away")

    monkeypatch.setattr(log, "topic_ids", refuse)


def test_a_flow_whose_log_goes_away_while_it_starts_folds_when_the_log_is_back(flow_at_rest, monkeypatch):
    away_once(flow_at_rest.log, monkeypatch)
    flow_at_rest.begin()
    assert [lane.lane for lane in flow_at_rest.runner.lanes] == [0]
    fold_all(flow_at_rest, 50)


def test_a_flow_whose_log_goes_away_while_it_reloads_reloads_again(flow, monkeypatch):
    lane = flow.runner.lanes[0]
    away_once(flow.log, monkeypatch)
    with pytest.raises(LogUnavailable) as error:
        flow.open()
    flow.recover(error.value)
    assert flow.runner.lanes != [lane]
    assert reads_of_users(flow, 20) == 10


def test_a_batch_that_begins_past_the_position_is_folded_after_what_lies_between(flow):
    """As an engine hands it over that reads on at a checkpoint, while Redis went back."""
    lane = flow.runner.lanes[0]
    at = lane.positions["product-views:0"]
    append_views(flow.appending, at, 30)
    skipped = flow.poll(1.0).after
    append_views(flow.appending, at + 30, 5)
    raw = flow.poll(1.0)
    assert raw.before == skipped
    flow.handle(raw)
    flow.runner.drain()
    assert lane.positions["product-views:0"] == at + 35
    counted = flow.store.read([keys.lane_globals(lane.prefix)])[0]
    flow.open()  # once more, in one piece
    flow.store.write({key: None for found in flow.store.scan(lane.prefix) for key in found})
    flow.open()
    fold_all(flow, at + 35)
    assert flow.store.read([keys.lane_globals(lane.prefix)])[0] == counted
