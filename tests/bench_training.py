"""The nightly job on many interactions: seconds by stage and peak memory. `python tests/bench_training.py --events N`.

Views of Zipf users and items go onto an embedded log; `headrace anchor`'s own function trains on it.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from batch.training.train_anchor import train_anchor
from flows.log.sqlite_log import SqliteLog
from headrace.bench.histories import append_views
from headrace.settings import Settings


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "log.sqlite")
        append_views(log, given.events, given.users, given.items, np.random.default_rng(7))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        found = train_anchor(Settings(data_dir=Path(folder)), log, time.time_ns() // 1_000_000)
        seconds = time.perf_counter() - started
        log.close()
    print(f"{given.events:,} interactions, {found['users']:,} users, {found['items']:,} items, 64 factors, 1 repeat")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{seconds:.1f} s: " + ", ".join(f"{name} {s:.1f}" for name, s in found["seconds"].items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 2**20:.2f} GiB (writing the log before: {before / 2**20:.2f})")


if __name__ == "__main__":
    main()
