"""`headrace plan`: what an installation of some size needs (`headrace.planning`)."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from headrace.console import FAILED, OK, WRONG_USAGE, err, print_json
from headrace.options import Json
from headrace.planning.costs import BadCosts, Costs, Prices, read_costs, read_prices
from headrace.planning.load import Load
from headrace.planning.plan import Plan, plan
from headrace.sizes import parse_size

DEFAULT = Load()


def run(load: Load, costs: Path | None, prices: Path | None, json: bool) -> int:
    """Print the plan of a load; return FAILED where no number of processes is enough."""
    try:
        measured, priced = read_costs(costs), read_prices(prices)
    except BadCosts as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    found = plan(load, measured)
    if json:
        figures = {"load": load.model_dump(), **asdict(found), "bottleneck": found.bottleneck, "fits": found.fits}
        print_json({**figures, "price_of_a_month": round(found.price(priced)), "costs": measured.model_dump()})
    else:
        _show(load, found, measured, priced)
    return OK if found.fits else FAILED


def _show(load: Load, found: Plan, costs: Costs, prices: Prices) -> None:
    out = Console(soft_wrap=True)
    table = Table("part", "n", "cores", "memory, GiB", "disk, GiB", "why")
    for part in found.parts:
        disk = f"{part.disk_gib:,.0f}" if part.disk_gib else ""
        table.add_row(part.name, f"{part.n:,}", f"{part.cores:,.0f}", f"{part.memory_gib:,.1f}", disk, part.why)
    out.print(table)
    out.print(
        f"{found.lanes:,} {'lane' if found.lanes == 1 else 'lanes'}, {found.partitions:,} partitions a busy topic; "
        f"{found.network_gib_per_day:,.0f} GiB of network a day; {found.price(prices):,.0f} a month by the price table",
        highlight=False,
    )
    grows = 1 / found.busy[found.bottleneck]
    out.print(
        f"first to give out: {found.bottleneck}, "
        + (f"at {grows:.1f} times this load" if found.fits else f"{1 / grows:.1f} times what there is"),
        highlight=False, style="" if found.fits else "bold red",
    )  # fmt: skip
    for note in found.notes:
        out.print(note, highlight=False)
    out.print(
        f"costs of an event: {costs.ingest.data}; of an answer: {costs.serving.data}", highlight=False, style="dim"
    )


def _option(name: str, default: str = "") -> Any:
    """Return the option of a field of Load; with a `default` it takes numbers such as 10M."""
    said = Load.model_fields[name].description
    if not default:
        return typer.Option(help=said)
    return typer.Option(parser=parse_size, metavar="NUMBER", help=said, show_default=default)


def command(
    events_per_day: Annotated[float, _option("events_per_day", "10M")] = DEFAULT.events_per_day,
    rps: Annotated[float, _option("rps", "1k")] = DEFAULT.rps,
    users: Annotated[float, _option("users", "1M")] = DEFAULT.users,
    items: Annotated[float, _option("items", "100k")] = DEFAULT.items,
    peak: Annotated[float, _option("peak")] = DEFAULT.peak,
    way: Annotated[Literal["http", "grpc", "stream", "batch"], _option("way")] = "http",
    busy: Annotated[float, _option("busy")] = DEFAULT.busy,
    shard_gib: Annotated[float, _option("shard_gib")] = DEFAULT.shard_gib,
    copies: Annotated[int, _option("copies")] = DEFAULT.copies,
    generations: Annotated[int, _option("generations")] = DEFAULT.generations,
    retention_days: Annotated[float, _option("retention_days")] = DEFAULT.retention_days,
    costs: Annotated[Path | None, typer.Option(help="Costs that the benchmarks wrote (--costs).")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices of a month, as JSON; see docs/scale.md.")] = None,
    json: Json = False,
) -> None:
    """Say what a shop of some size needs: processes, memory, disk, network, and what gives out first."""
    try:
        load = Load(
            events_per_day=events_per_day, rps=rps, users=users, items=items, peak=peak, way=way, busy=busy,
            shard_gib=shard_gib, copies=copies, generations=generations, retention_days=retention_days,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        err.print(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}; got {first['input']}", markup=False)
        raise typer.Exit(WRONG_USAGE) from None
    raise typer.Exit(run(load, costs, prices, json))
