"""`headrace anchor`: train on the log, write a version, publish it."""

import os
import time
from contextlib import closing, suppress
from importlib.metadata import version as installed
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from batch.training.comparison import METRICS, STRATEGIES, Refused
from batch.training.train_anchor import Progress, TooLittleData, train_anchor
from flows.connect import open_store
from flows.log.contract import LogUnavailable, PositionLost
from flows.log.open_log import open_log
from headrace.cli.anchors import remove, rollback
from headrace.cli.checkout import commit
from headrace.cli.quality_screen import compared, day, print_legend, table_of, too_few
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, read_settings, reading_bar
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from state.anchors.contract import AnchorsUnavailable
from state.anchors.last_run import Outcome, TrainingRun, write_last_run
from state.rows import keys
from state.store.contract import Store, StoreUnavailable


class Fault(NamedTuple):
    """What an error of a training means."""

    outcome: Outcome
    exit_code: int


FAULTS: dict[type[Exception], Fault] = {
    TooLittleData: Fault("too_little", FAILED),
    Refused: Fault("refused", FAILED),
    PositionLost: Fault("failed", FAILED),
    StoreUnavailable: Fault("failed", UNAVAILABLE),
    LogUnavailable: Fault("failed", UNAVAILABLE),
    RegistryUnavailable: Fault("failed", UNAVAILABLE),
    AnchorsUnavailable: Fault("failed", UNAVAILABLE),
}


def _fault_of(error: Exception) -> Fault:
    return next(fault for kind, fault in FAULTS.items() if isinstance(error, kind))


def run_anchor(settings: Settings, json: bool, force: bool = False) -> int:
    """Train and publish; print a summary; return the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        with closing(open_store(settings, patient=True)) as store:
            summary = _train_and_record(settings, store, force)
    except tuple(FAULTS) as error:
        err.print(str(error), markup=False)
        return _fault_of(error).exit_code
    if json:
        print_json(summary)
    else:
        _show(summary)
    return OK


def _train_and_record(settings: Settings, store: Store, force: bool) -> dict[str, Any]:
    """Return the summary of a training that published; how it ended is recorded in any case."""
    began = time.time()

    def record(outcome: Outcome, version: str | None = None, message: str = "") -> None:
        run = TrainingRun(
            at_ms=int(began * 1000), seconds=time.time() - began, outcome=outcome, version=version, message=message
        )
        write_last_run(store, run)

    try:
        summary = _train(settings, store, force)
    except tuple(FAULTS) as error:
        with suppress(StoreUnavailable):  # the error may be that the store is away
            record(_fault_of(error).outcome, message=str(error))
        raise
    record("published", summary["version"])
    return summary


def _train(settings: Settings, store: Store, force: bool) -> dict[str, Any]:
    live = store.read([keys.ANCHOR_LIVE])[0]
    with closing(open_log(settings.log_address, config=settings.kafka_config)) as events:
        summary = train_anchor(
            settings, events, time.time_ns() // 1_000_000, live.decode() if live else None, force,
            Progress(err.status, reading_bar),
        )  # fmt: skip
    store.write({keys.ANCHOR_PUBLISHED: summary["version"].encode()})
    return summary


def _show(summary: dict[str, Any]) -> None:
    out, metrics = Console(), summary["metrics"]
    table = Table("anchor", summary["version"], title="published; lanes refold, then servers follow")
    for name in ("events", "users", "items"):
        table.add_row(name, f"{summary[name]:,}")
    table.add_row("from", f"{day(summary['first_ms'])} UTC")
    table.add_row("to", f"{day(summary['last_ms'])} UTC")
    for name, seconds in summary["seconds"].items():
        table.add_row(name, f"{seconds:,.1f} s")
    out.print(table)
    if metrics["strategies"]:
        live = metrics["live"] or {"strategies": {}}
        models = metrics["strategies"] | {
            f"live: {name}": one for name, one in live["strategies"].items() if name in STRATEGIES
        }
        out.print(table_of(models, METRICS, f"{metrics['predictions']:,} predictions, by strategy"))
        print_legend(out, METRICS)
        out.print("In brackets: 95 % intervals by bootstrap.", highlight=False, markup=False)
    for line in (*_about_training(metrics), verdict(metrics)):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _about_training(metrics: dict[str, Any]) -> list[str]:
    fit = "fitted to the shop" if metrics["fit_kept"] else "the default, which the fit did not beat"
    trees = f"{metrics['trees']} trees order the best" if metrics["trees"] else "no trees, which did not win"
    index = f"Index: {metrics['index']}, {metrics['index_items']:,} items, recall@50 {metrics['index_recall@50']:.3f}."
    return [f"Scoring: numbers {fit}; {trees}. {index}", f"headrace {installed('headrace')}, commit {commit()}."]


def verdict(metrics: dict[str, Any]) -> str:
    """Return one sentence: how the new anchor's lists do, and how they compare with the live anchor's."""
    if not metrics["strategies"]:
        return "Published without a measurement: too few visitors go on from one item to the next."
    rate, n = metrics["strategies"]["hybrid"]["HR@20"], metrics["predictions"]
    found = f"`hybrid` finds the next item in {rate:.1%} of {n:,} lists of 20{too_few(n)}"
    live, gains = metrics["live"], metrics.get("difference", {})
    if not gains:
        return f"{found}; there is no live anchor with such figures to compare it with."
    name = f"the live one, {live['version']}"
    seen = "" if live["same_predictions"] else ", as that was measured when it was trained"
    prefixes = {strategy: "" if strategy == "hybrid" else f"`{strategy}` is " for strategy in gains}
    others = "; ".join(f"{prefixes[strategy]}{compared(gain, name)}" for strategy, gain in gains.items())
    return f"{found}: {others}{seen}."


def command(
    action: Annotated[str, typer.Argument(help="train, rollback to the anchor before, or remove one")] = "train",
    version: Annotated[str, typer.Argument(help="The anchor that is removed.")] = "",
    force: Annotated[bool, typer.Option(help="Publish even if its lists are worse than the live ones.")] = False,
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
