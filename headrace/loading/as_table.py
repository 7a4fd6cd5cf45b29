"""A file of a shop becomes the table that an evaluation reads."""

import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from headrace.loading.plan import Choices, make_plan, read_all
from headrace.loading.spool import Spool

KINDS = ("view", "click", "add_to_cart", "wishlist", "purchase")
"""Events that an evaluation learns from and predicts."""
Line = tuple[str, str, str, int, str, str | None]


def write_table(path: Path, choices: Choices, target: Path) -> None:
    """Write user, session, item, ts_ms, kind and category of a file's events as Parquet, by time. Raises BadFile."""
    with Spool() as spool:
        read_all(make_plan(path, choices._replace(products=False)), spool, time.time_ns() // 1_000_000, None)
        names = ("user", "session", "item", "ts_ms", "kind", "category")
        table = pl.DataFrame(list(_lines(spool)), schema=names, orient="row", infer_schema_length=None)
    table.write_parquet(target)


def _lines(spool: Spool) -> Iterator[Line]:
    for _, event in spool.events():
        if event["type"] not in KINDS:
            continue
        user = event.get("user") or event["session"]
        for line in event.get("lines", [event]):
            if "item" in line:
                session = event.get("session") or user
                yield user, session, line["item"], event["ts_ms"], event["type"], line.get("category")
