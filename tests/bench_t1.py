"""Protocol T1 (next item, rsc15_100k) with the real lane and the real scorer: `python tests/bench_t1.py`.

Needs `../shared/data/rsc15_100k.parquet` beside the project.
"""

import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from flows.lane import Lane, LaneSettings  # noqa: E402
from flows.log import RawBatch  # noqa: E402
from schemas.events import COLUMN_DTYPE, Decoded, Kind  # noqa: E402
from schemas.ids import hash_id  # noqa: E402
from serving.blend import Scorer  # noqa: E402
from state.store import MemoryStore  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "rsc15_100k.parquet"
WHOLE_SESSION_MS = 10**10  # a T1 user is one session, whatever its pauses
TOP = 20


def training_batch(table):
    """The training clicks as the lane receives them."""
    columns = np.zeros(len(table), COLUMN_DTYPE)
    texts = [str(item).encode() for item in table["item"]]
    bounds = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    columns["message"] = np.arange(len(table))
    columns["event_id"] = np.arange(1, len(table) + 1)
    columns["kind"], columns["value"], columns["price"] = Kind.VIEW, 1, np.nan
    columns["user"] = [hash_id(user) for user in table["user"]]
    columns["item"] = [hash_id(str(item)) for item in table["item"]]
    columns["ts_ms"] = table["ts"].dt.epoch("ms")
    columns["item_start"], columns["item_length"] = bounds[:-1], np.diff(bounds)
    n = len(table)
    payload = np.frombuffer(b"".join(texts), np.uint8)
    raw = RawBatch(("t1:0",), np.zeros(n, np.int32), np.arange(n), payload, bounds, {"t1:0": 0}, {"t1:0": n})
    return Decoded(columns), raw


def main():
    if not DATA.exists():
        sys.exit(f"{DATA.name} is not beside the project; nothing to measure")
    table = pl.read_parquet(DATA)
    train = table.filter(pl.col("split") == "train").sort("ts")
    test = table.filter(pl.col("split") == "test").sort("user", "ts")
    settings = LaneSettings(max_cached_users=40_000, max_cached_items=10_000, session_gap_ms=WHOLE_SESSION_MS)
    lane = Lane(settings, MemoryStore(), "t1")
    batch = training_batch(train)
    for _ in range(2):  # the first time compiles
        lane.open()
        started = time.perf_counter()
        lane.apply(*batch)
        learn_us = (time.perf_counter() - started) / len(train) * 1e6
    sessions, targets = [], []
    for _, clicks in test.group_by("user", maintain_order=True):
        items = [hash_id(str(item)) for item in clicks["item"]]
        sessions += [np.array(items[:k], np.uint64) for k in range(1, len(items))]
        targets += items[1:]
    scorer = Scorer()
    scorer.warm_up()
    now_ms = int(batch[0].interactions["ts_ms"].max())
    ranks, is_new, spent = [], [], 0.0
    for first in range(0, len(sessions), 16):
        chunk = sessions[first : first + 16]
        started = time.perf_counter()
        scored = scorer.score(chunk, lane._items.rows, lane._items._slots, lane._totals, now_ms)
        spent += time.perf_counter() - started
        for b, session in enumerate(chunk):
            top = scored.item[b, : min(TOP, scored.n[b])].tolist()
            target = targets[first + b]
            ranks.append(top.index(target) + 1 if target in top else 0)
            is_new.append(target not in session.tolist())
    ranks, is_new = np.array(ranks), np.array(is_new)
    gain = np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; data: {len(train)} training events; one run")
    print(f"n = {len(ranks)}: HR@20 {np.mean(ranks > 0):.4f}  MRR@20 {gain.mean():.4f}")
    print(f"new only: HR@20 {np.mean(ranks[is_new] > 0):.4f}  MRR@20 {gain[is_new].mean():.4f}")
    print(f"learning {learn_us:.2f} µs an event (whole lane), scoring {spent / len(ranks) * 1e6:.1f} µs a request")


if __name__ == "__main__":
    main()
