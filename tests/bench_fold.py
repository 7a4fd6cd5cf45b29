"""What learning from an event and folding a user in cost: `python tests/bench_fold.py [--users N] [--items N]`.

Full histories and full item rows, Zipf users and items, one thread, no store: the fold kernel on batches of 20,000
views, then the vectors of users in random order.

With `--train TRAIN.parquet` (columns user, item, ts_ms) the fold kernel alone, on the events of a real shop from the
first on.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from batch.evaluation.tables import read_events
from flows.fold.event_effects import FoldState, ItemIndex
from flows.fold.foldin import FOLD_ITEMS, vectors_for
from flows.fold.settings import LaneSettings
from flows.fold.user_history import fold_events
from headrace.bench.histories import START_MS, zipf
from headrace.bench.ingest import D, random_anchor
from headrace.bench.up import machine
from schemas.events import COLUMN_DTYPE, Kind
from schemas.ids import MEASURING_KEY, use_key
from state.rows.item_rows import MAX_NEIGHBOURS, PAIR_UNIT, empty_items
from state.rows.lane_rows import SIZE
from state.rows.slot_map import SlotMap
from state.rows.user_rows import MAX_HISTORY, empty_users

BATCH, REPEATS = 20_000, 20


def full_rows(rng, n_users, item_hash):
    users, items = empty_users(n_users), empty_items(len(item_hash))
    users["n"], users["seen"], users["kind"], users["gap_ms"] = MAX_HISTORY, MAX_HISTORY, Kind.VIEW, 600_000
    users["last_ms"], users["first_ms"] = START_MS - 600_000, START_MS - 40_000_000
    users["item"] = item_hash[zipf(rng, len(item_hash), 1.05, users["item"].size)].reshape(n_users, -1)
    items["n"], items["support"], items["count"], items["total"] = MAX_NEIGHBOURS, 100, 100, 100 * PAIR_UNIT
    items["neighbour"] = np.sort(rng.choice(item_hash, (len(item_hash), MAX_NEIGHBOURS)), axis=1)
    items["weight"] = rng.integers(1, 5 * PAIR_UNIT, items["weight"].shape)
    return users, items


def microseconds(rounds, size):
    times = [seconds / size * 1e6 for seconds in rounds[1:]]  # the first one compiles
    return f"{statistics.median(times):.2f} us (least {min(times):.2f}, {len(times)} repeats)"


def fold(events, who, users, items, slots, marks, totals, params):
    """Fold a batch of events that are all new; return the seconds."""
    slots.begin_round()
    index = ItemIndex(slots.table, slots.slot_at, slots.used_in, marks[0], slots.round_no)
    began = time.perf_counter()
    state = FoldState(users, items, index, marks[1], totals, params)
    assert fold_events(events, np.ones(len(events), bool), 0, who, state) == len(events)
    return time.perf_counter() - began


def learn_from(path):
    """Print what an event of the table costs, from the first on."""
    events, _ = read_events(Path(path))
    user, who = np.unique(events["user"], return_inverse=True)
    item_hash = np.unique(events["item"])
    rounds = []
    for _ in range(REPEATS + 1):
        users, items, totals = empty_users(len(user)), empty_items(len(item_hash)), np.zeros(SIZE, np.int64)
        slots, marks = SlotMap(len(item_hash)), np.zeros((2, len(item_hash)), np.int64)
        slots.assign(item_hash)
        parts = [slice(first, first + BATCH) for first in range(0, len(events), BATCH)]
        params = LaneSettings().fold_params()
        rounds.append(sum(fold(events[k], who[k], users, items, slots, marks, totals, params) for k in parts))
    print(f"{len(events):,} events of {len(user):,} users, {len(item_hash):,} items, from the first on")
    print(f"learning from an event: {microseconds(rounds, len(events))}")


def main():
    use_key(MEASURING_KEY)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--train")
    asked = parser.parse_args()
    print(machine())
    if asked.train:
        learn_from(asked.train)
        return
    rng = np.random.default_rng(7)
    item_hash = rng.integers(1, 2**63, asked.items).astype(np.uint64)
    users, items = full_rows(rng, asked.users, item_hash)
    slots, totals, params = SlotMap(asked.items), np.zeros(SIZE, np.int64), LaneSettings().fold_params()
    slots.assign(item_hash)
    marks, folds, foldins = np.zeros((2, asked.items), np.int64), [], []
    for batch in range(REPEATS + 1):
        events = np.zeros(BATCH, COLUMN_DTYPE)
        who, what = zipf(rng, asked.users, 0.8, BATCH), zipf(rng, asked.items, 1.05, BATCH)
        events["item"], events["kind"], events["price"] = item_hash[what], Kind.VIEW, 9.5
        events["ts_ms"] = START_MS + batch * BATCH + np.arange(BATCH)
        events["category"], events["brand"] = what % 200 + 1, what % 500 + 1
        folds.append(fold(events, who, users, items, slots, marks, totals, params))
    anchor = random_anchor(item_hash, rng)
    for _ in range(REPEATS + 1):
        chosen = rng.integers(0, asked.users, BATCH)
        began = time.perf_counter()
        vectors_for(users, chosen, anchor)
        foldins.append(time.perf_counter() - began)
    print(f"Zipf {asked.users:,} users (0.8) x {asked.items:,} items (1.05), full rows, d={D}, batches of {BATCH:,}")
    print(f"learning from an event: {microseconds(folds, BATCH)}")
    print(f"a user's vector, at most {FOLD_ITEMS} items: {microseconds(foldins, BATCH)}")


if __name__ == "__main__":
    main()
