import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.dead_letters import DeadLetters
from flows.log import LogUnavailable, Message, RawBatch
from flows.reader import FIRST_EVENTS, MOST_BYTES, BatchReader, BatchSize
from flows.runner import Runner
from flows.sqlite_log import SqliteLog
from schemas.decode import Limits
from schemas.encode import encode
from schemas.registry import FolderRegistry
from state.store import MemoryStore

REGISTRY = FolderRegistry()
T0 = 1_700_000_000_000


def view(n):
    record = {"event_id": f"e{n}", "ts_ms": T0 + n, "user": "u", "item": f"i{n}"}
    return Message("product-views", b"k", encode("product-views", record, REGISTRY), T0 + n)


def batch(n, n_bytes, full=True):
    offsets, bounds = np.arange(n), np.linspace(0, n_bytes, n + 1).astype(np.int64)
    payload = np.broadcast_to(np.uint8(0), n_bytes)
    return RawBatch(("a:0",), np.zeros(n, np.int32), offsets, payload, bounds, {}, {}, full=full)


def reader_of(log, most, decode=None):
    runner = Runner([], MemoryStore(), REGISTRY, DeadLetters(log), Limits())
    return BatchReader(log, decode or runner.decode, BatchSize(most, longest_s=10))


@given(st.lists(st.integers(1, 9)), st.integers(1, 7))
def test_every_message_comes_once_in_order_and_decoded(tmp_path_factory, appends, most):
    log = SqliteLog(tmp_path_factory.mktemp("log") / "log.sqlite")
    n = 0
    for size in appends:
        log.append([view(k) for k in range(n, n + size)])
        n += size
    reader = reader_of(log, most)
    reader.begin({})
    offsets = []
    while (raw := reader.read(0.0)) is not None:
        assert len(raw) <= most
        assert raw.full == (len(raw) == most)
        assert raw.decoded.interactions["ts_ms"].tolist() == (T0 + raw.offset).tolist()
        offsets += raw.offset.tolist()
    assert offsets == list(range(n))
    reader.close()


def test_a_full_batch_is_given_while_the_next_one_is_read_and_a_new_beginning_forgets_that_one(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([view(n) for n in range(20)])
    decoding, go_on = threading.Event(), threading.Event()

    def decode(raw):
        if raw.offset[0] == 5:
            decoding.set()
            assert go_on.wait(10)
        return raw

    reader = reader_of(log, 5, decode)
    reader.begin({})
    assert reader.read(0.0).offset.tolist() == [0, 1, 2, 3, 4]
    assert decoding.wait(10)
    go_on.set()
    assert reader.between_reads().end()["product-views:0"] == 20
    reader.begin({"product-views:0": 3})
    assert reader.read(0.0).offset.tolist() == [3, 4, 5, 6, 7]
    reader.close()


def test_trouble_with_what_is_read_ahead_is_raised_where_it_would_be_read(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([view(n) for n in range(10)])
    broken = iter([False, True, False, False])

    def decode(raw):
        if next(broken):
            raise LogUnavailable("away")
        return raw

    reader = reader_of(log, 4, decode)
    reader.begin({})
    assert reader.read(0.0).offset[0] == 0
    with pytest.raises(LogUnavailable):
        reader.read(0.0)
    reader.begin({"product-views:0": 4})
    assert reader.read(0.0).offset.tolist() == [4, 5, 6, 7]
    reader.close()


def test_what_was_decoded_ahead_is_not_used_for_a_part_of_the_batch(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([view(n) for n in range(4)])
    reader = reader_of(log, 10)
    reader.begin({})
    raw = reader.read(0.0)
    assert raw.until({**raw.after, "product-views:0": 2}).decoded is None
    assert raw.until(raw.after).decoded is raw.decoded
    reader.close()


def test_batches_grow_while_they_are_full_up_to_what_time_and_bytes_allow():
    size = BatchSize(most_events=200_000, longest_s=1.0)
    assert size.limit == FIRST_EVENTS
    size.learn(batch(60_000, 6_000_000), seconds=0.3)
    assert size.limit == 120_000
    size.learn(batch(120_000, 12_000_000), seconds=0.3)
    assert size.limit == 200_000
    size.learn(batch(200_000, 20_000_000), seconds=4.0)
    assert size.limit == pytest.approx(50_000, abs=1)
    size.learn(batch(size.limit, size.limit * 4096), seconds=0.1)
    assert size.limit == MOST_BYTES // 4096
    before = size.limit
    size.learn(batch(10, 1000, full=False), seconds=5.0)
    size.learn(replace(batch(1, 1, full=False), offset=np.zeros(0, np.int64)), seconds=5.0)
    assert size.limit == before
