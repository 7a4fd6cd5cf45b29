from dataclasses import replace

import numpy as np
import pytest

from flows.log.batch_sizer import FIRST_EVENTS, MOST_BYTES, BatchSizer
from flows.log.contract import RawBatch


def batch(n, n_bytes, full=True):
    offsets, bounds = np.arange(n), np.linspace(0, n_bytes, n + 1).astype(np.int64)
    payload = np.broadcast_to(np.uint8(0), n_bytes)
    return RawBatch(("a:0",), np.zeros(n, np.int32), offsets, payload, bounds, {}, {}, full=full)


def test_batches_grow_while_they_are_full_up_to_what_time_and_bytes_allow():
    size = BatchSizer(most_events=200_000, longest_s=1.0)
    assert size.limit == FIRST_EVENTS
    size.observe(batch(60_000, 6_000_000), seconds=0.3)
    assert size.limit == 120_000
    size.observe(batch(120_000, 12_000_000), seconds=0.3)
    assert size.limit == 200_000
    size.observe(batch(200_000, 20_000_000), seconds=4.0)
    assert size.limit == pytest.approx(50_000, abs=1)
    size.observe(batch(size.limit, size.limit * 4096), seconds=0.1)
    assert size.limit == MOST_BYTES // 4096
    before = size.limit
    size.observe(batch(10, 1000, full=False), seconds=5.0)
    size.observe(replace(batch(1, 1, full=False), offset=np.zeros(0, np.int64)), seconds=5.0)
    assert size.limit == before
