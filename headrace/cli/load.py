"""`headrace load`: a file becomes events on the log."""

import sys
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.loading.append import append_all
from headrace.loading.errors import BadFile
from headrace.loading.findings import Findings
from headrace.loading.plan import Choices, Plan, make_plan, read_all
from headrace.loading.presets import PRESETS
from headrace.loading.reading import ReadingOptions
from headrace.loading.screen import show
from headrace.loading.spool import Spool
from headrace.options import Json
from headrace.sample.fill import NotEmpty, fill
from headrace.settings import Settings


class How(NamedTuple):
    """What is done with what was understood."""

    dry_run: bool
    yes: bool
    json: bool


def run(settings: Settings, file: Path, choices: Choices, how: How) -> int:
    """Show what a file holds and load it; return the exit code."""
    max_future_ms = int(settings.max_future_s * 1000)
    with Spool() as spool:
        try:
            plan = make_plan(file, choices)
            findings = _read(plan, spool, max_future_ms)
        except BadFile as error:
            err.print(str(error), markup=False)
            return WRONG_USAGE
        if not how.json:
            show(findings, Console() if how.dry_run else err)
        if how.dry_run:
            if how.json:
                print_json(findings.as_json())
            else:
                err.print("nothing was loaded: this was --dry-run")
            return OK
        if not findings.n_events:
            err.print(f"{file.name}: no row can be loaded", markup=False)
            return FAILED
        if not _agreed(how, findings):
            err.print("nothing was loaded")
            return OK
        return _load(settings, spool, findings, max_future_ms, how.json)


def _read(plan: Plan, spool: Spool, max_future_ms: int) -> Findings:
    now_ms, began = time.time_ns() // 1_000_000, time.perf_counter()
    with progress_bar("rows") as bar:
        bar.live.transient, bar.disable = True, not err.is_terminal
        task = bar.add_task(f"reading {Path(plan.findings.file).name}", total=None, rate=0.0)

        def progress(done: float) -> None:
            n = plan.findings.n_rows
            bar.update(task, total=max(int(n / done), n) if done > 0.001 else None, completed=n,
                       rate=n / (time.perf_counter() - began))  # fmt: skip

        findings = read_all(plan, spool, now_ms, max_future_ms, progress)
        bar.update(task, total=findings.n_rows, completed=findings.n_rows)
    return findings


def _agreed(how: How, findings: Findings) -> bool:
    """Return whether to load; a person at a terminal is asked."""
    if how.yes or how.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    return typer.confirm(f"Load {findings.n_events:,} events?", default=True, err=True)


def _load(settings: Settings, spool: Spool, findings: Findings, max_future_ms: int, json: bool) -> int:
    try:
        log = open_log(settings.log_address, config=settings.kafka_config)
        events = (spooled.event for spooled in spool.events())
        title = f"loading {Path(findings.file).name}"
        loaded, refused = append_all(log, events, findings.n_events, open_registry(settings), title, max_future_ms)
        log.close()
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    for reason, n in refused.items():
        findings.refuse(reason, 0, "")
        findings.refused[reason.partition("; got ")[0]].n += n - 1
    if json:
        print_json(findings.as_json() | {"loaded": loaded})
    else:
        err.print(f"{loaded:,} events loaded, {findings.n_refused:,} refused")
    return OK if loaded else FAILED


def run_sample(settings: Settings, force: bool, json: bool) -> int:
    """Load the sample shop; return the exit code."""
    try:
        log = open_log(settings.log_address, config=settings.kafka_config)
        loaded = fill(log, open_registry(settings), time.time_ns() // 1_000_000, force)
        log.close()
    except NotEmpty as error:
        err.print(str(error), markup=False)
        return FAILED
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"loaded": loaded})
    else:
        err.print(f"{loaded:,} events loaded: 60 products and what 200 visitors did in two months")
    return OK


def command(
    file: Annotated[
        Path | None, typer.Argument(help="CSV, TSV, Excel, Parquet, JSON, JSON lines or a product feed as XML.")
    ] = None,
    map: Annotated[str, typer.Option(help="Our fields from its columns: item=id,title=name,attr.colour=Farbe,…")] = "",
    kind: Annotated[
        str, typer.Option(help="Type of every event where no column has it: view, purchase, product, …")
    ] = "",
    kinds: Annotated[str, typer.Option(help="Types by the column's values: transaction=purchase,page=skip,…")] = "",
    preset: Annotated[
        str, typer.Option(help=f"The export a file comes from: {', '.join(PRESETS)}; none: do not recognise it.")
    ] = "",
    attributes: Annotated[str, typer.Option(help="Columns that become attributes of products; *: all others.")] = "",
    replace: Annotated[
        bool, typer.Option(help="Each row is the whole product: what it does not name is cleared.")
    ] = False,
    products: Annotated[
        bool, typer.Option(help="Rows of events that name titles also make products with these titles.")
    ] = True,
    dates: Annotated[str, typer.Option(help="Order of dates such as 03/04/2024: dmy or mdy.")] = "",
    zone: Annotated[str, typer.Option(help="Zone of times that name none, e.g. Europe/Berlin; else UTC.")] = "",
    decimal: Annotated[str, typer.Option(help="What separates the fraction in numbers: , or .")] = "",
    encoding: Annotated[str, typer.Option(help="Encoding of a text, e.g. cp1252; else it is found out.")] = "",
    separator: Annotated[str, typer.Option(help="What separates columns: , ; tab …; else it is found out.")] = "",
    header: Annotated[
        bool | None, typer.Option(help="Whether the first line names the columns; without: columns are 1, 2, 3 …")
    ] = None,
    sheet: Annotated[str, typer.Option(help="The sheet of a workbook; else the first one with rows.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Show what is understood; load nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Load only so many rows; 0: all.")] = 0,
    sample: Annotated[bool, typer.Option(help="Load a small invented shop into an empty installation.")] = False,
    force: Annotated[bool, typer.Option(help="With --sample: also where there are events already.")] = False,
    json: Json = False,
) -> None:
    """Turn a file into events on the log, in time order. Loading a file twice adds nothing to the rows."""
    if sample:
        raise typer.Exit(run_sample(read_settings(), force, json))
    if file is None:
        err.print("give a file, or --sample; `headrace load --help` has the options")
        raise typer.Exit(WRONG_USAGE)
    reading = ReadingOptions(encoding, separator, header, sheet)
    choices = Choices(map, kind, kinds, preset, attributes, dates, zone, decimal, limit, replace, products, reading)
    raise typer.Exit(run(read_settings(), file, choices, How(dry_run, yes, json)))
