"""`headrace anchor`: train on the log, write a version, publish it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from batch.training.train_anchor import Progress, Refused, TooLittleData, train_anchor
from flows.connect import open_store
from flows.log.contract import LogUnavailable, PositionLost
from flows.log.open_log import open_log
from headrace.cli.anchors import remove, rollback
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from state.anchors.contract import AnchorsUnavailable
from state.anchors.last_run import Outcome, TrainingRun, write_last_run
from state.rows import keys
from state.store.contract import StoreUnavailable


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of the messages read while the log is read."""
    began, done = time.perf_counter(), 0
    with progress_bar("messages") as bar:
        task = bar.add_task("reading the log", total=total, rate=0.0)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, completed=done, rate=done / (time.perf_counter() - began))

        yield advance


OUTCOMES: dict[type[Exception], Outcome] = {TooLittleData: "too_little", Refused: "refused"}


def _run_since(began: float, outcome: Outcome, version: str | None = None, message: str = "") -> TrainingRun:
    return TrainingRun(
        at_ms=int(began * 1000), seconds=time.time() - began, outcome=outcome, version=version, message=message
    )


def run_anchor(settings: Settings, json: bool, force: bool = False) -> int:
    """Train and publish; print a summary; return the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    began = time.time()
    try:
        store = open_store(settings, patient=True)
        events = open_log(settings.log_address, config=settings.kafka_config)
        live = store.read([keys.ANCHOR_LIVE])[0]
        current = live.decode() if live else None
        now_ms = time.time_ns() // 1_000_000
        summary = train_anchor(settings, events, now_ms, current, force, Progress(err.status, _bar))
        events.close()
        store.write({keys.ANCHOR_PUBLISHED: summary["version"].encode()})
        write_last_run(store, _run_since(began, "published", summary["version"]))
        store.close()
    except (TooLittleData, Refused, PositionLost) as error:
        write_last_run(store, _run_since(began, OUTCOMES.get(type(error), "failed"), message=str(error)))
        err.print(str(error), markup=False)
        return FAILED
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable, AnchorsUnavailable) as error:
        with contextlib.suppress(StoreUnavailable, NameError):
            write_last_run(store, _run_since(began, "failed", message=str(error)))
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(summary)
    else:
        table = Table("anchor", summary["version"], title="published; lanes refold, then servers follow")
        for name in ("events", "users", "items"):
            table.add_row(name, f"{summary[name]:,}")
        for name, value in {**summary["metrics"], **summary["seconds"]}.items():
            table.add_row(name, f"{value:,.4g}" if isinstance(value, int | float) else str(value or "–"))
        Console().print(table)
    return OK


def command(
    action: Annotated[str, typer.Argument(help="train, rollback to the anchor before, or remove one")] = "train",
    version: Annotated[str, typer.Argument(help="The anchor that is removed.")] = "",
    force: Annotated[bool, typer.Option(help="Publish even if it finds less than the current one.")] = False,
    json: Json = False,
) -> None:
    """Train the nightly models on the log and publish them; flows refold, then servers follow."""
    if action == "rollback":
        raise typer.Exit(rollback(read_settings(), json))
    if action == "remove" and version:
        raise typer.Exit(remove(read_settings(), version, json))
    if action != "train" or version:
        err.print(
            "use `anchor`, `anchor train`, `anchor rollback` or `anchor remove VERSION`; "
            f"got {f'{action} {version}'.strip()!r}",
            markup=False,
        )
        raise typer.Exit(WRONG_USAGE)
    raise typer.Exit(run_anchor(read_settings(), json, force))
