"""`headrace experiments` lists those of the live book; with a name it prints the results of that one."""

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from batch.evaluation.experiment_report import read_log, report
from flows.connect import open_store
from flows.log.contract import LogUnavailable, PositionLost
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.settings import limits_of
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.events import Kind
from schemas.registry import RegistryUnavailable
from serving.rules.book_errors import BadBook
from serving.rules.book_store import live_version, read_book
from serving.rules.experiments import Experiment
from state.store.contract import StoreUnavailable

HOUR_MS = 3_600_000


def run(settings: Settings, name: str, event: str, within_h: float, json: bool) -> int:
    """List experiments, or print the report of one; return the exit code."""
    kinds = {kind.name.lower(): int(kind) for kind in Kind}
    if event not in kinds:
        err.print(f"--event must be one of {', '.join(kinds)}; got {event!r}", markup=False)
        return WRONG_USAGE
    try:
        store = open_store(settings)
        experiments = read_book(store, live_version(store)).book.experiments
        store.close()
        if not name:
            _list(experiments, json)
            return OK
        experiment = next((one for one in experiments if one.id == name), None)
        if experiment is None:
            err.print(f"the live book has no experiment {name!r}; `headrace experiments` lists them", markup=False)
            return WRONG_USAGE
        found = _report(settings, experiment, kinds[event], within_h)
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable, BadBook) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    except PositionLost as error:
        err.print(str(error), markup=False)
        return FAILED
    found |= {"event": event, "within_h": within_h}
    if json:
        print_json(found)
    else:
        _print(found)
    return OK


def _list(experiments: tuple[Experiment, ...], json: bool) -> None:
    if json:
        print_json({"experiments": [one.model_dump(mode="json") for one in experiments]})
        return
    table = Table("experiment", "where", "share", "arms", "note")
    for one in experiments:
        arms = ", ".join(f"{arm.name} ({arm.weight:g})" for arm in one.arms)
        where = ", ".join(one.placements) or "everywhere"
        table.add_row(one.id + ("" if one.enabled else " (off)"), where, f"{one.share:.0%}", arms, one.note)
    Console().print(table)


def _report(settings: Settings, experiment: Experiment, kind: int, within_h: float) -> dict[str, Any]:
    log, registry = (
        open_log(settings.log_address, config=settings.kafka_config),
        open_registry(settings),
    )
    started, done = time.perf_counter(), 0
    with progress_bar("messages") as bar:
        end, start = log.end(), log.start()
        task = bar.add_task("reading the log", total=sum(end.values()) - sum(start.get(s, 0) for s in end), rate=0.0)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, advance=n, rate=done / max(time.perf_counter() - started, 1e-9))

        now_ms, patience_s = time.time_ns() // 1_000_000, settings.connect_timeout_s
        seen = read_log(log, registry, experiment.id, kind, now_ms, limits_of(settings), patience_s, advance)
    log.close()
    return report(experiment, seen, int(within_h * HOUR_MS))


def _print(found: dict[str, Any]) -> None:
    title = f"{found['experiment']}: {found['event']} within {found['within_h']:g} h"
    table = Table("arm", "lists", "visitors", "converted", "rate", "difference", "p", title=title)
    for arm in found["arms"]:
        rate = f"{arm['rate']:.2%} ({arm['rate_low']:.2%} to {arm['rate_high']:.2%})"
        more, p = "–", "–"
        if "difference" in arm:
            more = f"{arm['difference']:+.2%} ({arm['difference_low']:+.2%} to {arm['difference_high']:+.2%})"
            p = f"{arm['p_value']:.4f}"
        table.add_row(arm["arm"], f"{arm['lists']:,}", f"{arm['visitors']:,}", f"{arm['converted']:,}", rate, more, p)
    Console().print(table)
    if found["split_is_suspect"]:
        err.print(
            f"the visitors are not split as the weights say (p = {found['split_p_value']:.1e}): "
            "find out why before believing any of this", style="bold red",
        )  # fmt: skip
    if found["visitors_in_several_arms"]:
        err.print(f"{found['visitors_in_several_arms']:,} visitors saw more than one arm and count in none")
    if found["unreadable_impressions"]:
        err.print(f"{found['unreadable_impressions']:,} impressions cannot be read and count nowhere")
    if not any(arm["visitors"] for arm in found["arms"]):
        err.print("no exposures in the log: HEADRACE_IMPRESSIONS_SHARE says which share of the answers is written")


def command(
    name: Annotated[str, typer.Argument(help="One of the live book's experiments; none: list them.")] = "",
    event: Annotated[str, typer.Option(help="What is hoped for: purchase, click, add_to_cart, …")] = "purchase",
    within: Annotated[float, typer.Option(help="Hours after the first list shown that count.")] = 24,
    json: Json = False,
) -> None:
    """Experiments of the live book; of one of them, what each arm's visitors did, with its uncertainty."""
    raise typer.Exit(run(read_settings(), name, event, within, json))
