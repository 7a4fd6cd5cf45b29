"""What a night's training reads of the log: all of it or an error, by the limits of the settings."""

import pytest

from batch.training.interactions import read_interactions
from batch.training.log_events import Reader
from flows.fold.settings import LaneSettings
from flows.log.contract import LogUnavailable, Message
from flows.log.sqlite_log import SqliteLog
from schemas.avro_decoder import Limits
from schemas.json_events import encode
from schemas.registry import FolderRegistry

T0 = 1_700_000_000_000
REGISTRY = FolderRegistry()
WEIGHTS = LaneSettings().fold_params().weights


def view(name, **more):
    record = {"event_id": name, "ts_ms": T0, "user": f"u{name}", "item": "tea", **more}
    return Message("product-views", b"k", encode("product-views", record, REGISTRY), T0)


def read(log, limits=None, patience_s=0.3):
    return read_interactions(log, Reader(REGISTRY, T0, limits or Limits(), patience_s), WEIGHTS)


def test_a_log_that_cannot_be_read_to_its_end_trains_nothing(tmp_path):
    class Stuck(SqliteLog):
        """A log of which one stream does not come, as of a partition without a leader."""

        def end(self):
            return {**super().end(), "purchases:0": 5}

    log = Stuck(tmp_path / "log.sqlite")
    log.append([view("a")])
    with pytest.raises(LogUnavailable, match="purchases:0 stands at 0 of 5"):
        read(log)
    log.close()


def test_what_comes_while_it_reads_is_left_for_the_next_night(tmp_path):
    class Growing(SqliteLog):
        """A log onto which somebody appends while it is read."""

        def read(self, positions, max_messages, timeout_s):
            self.append([view(f"late{self.end()['product-views:0']}")])
            return super().read(positions, max_messages, timeout_s)

    log = Growing(tmp_path / "log.sqlite")
    log.append([view("a"), view("b")])
    assert len(read(log).weight) == 2
    log.close()


def test_messages_the_flow_would_refuse_are_not_learned_from(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([view("a"), view("b", context={"k": "x" * 500}), view("c", ts_ms=T0 + 2000)])
    assert len(read(log).weight) == 3
    assert len(read(log, Limits(max_message_bytes=300, max_future_ms=1000)).weight) == 1
    log.close()
