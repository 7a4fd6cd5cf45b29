"""`headrace torture`: faults on the real parts."""

from typing import Annotated, Literal

import typer

from headrace.console import use_measuring_key
from headrace.options import Json
from headrace.torture.run import run


def command(
    rounds: Annotated[int, typer.Option(help="How often every fault is played.")] = 1,
    fault: Annotated[list[str], typer.Option(help="Only this fault; may repeat.")] = [],  # noqa: B006
    driver: Annotated[
        Literal["loop", "bytewax", "both"],
        typer.Option(help="What folds: loop, bytewax with two workers, or each in turn."),
    ] = "loop",
    seed: Annotated[int, typer.Option(help="Seed of the first round; the next ones count up.")] = 1,
    outage: Annotated[float, typer.Option(help="How long outages last, in seconds.")] = 10,
    fuzz: Annotated[int, typer.Option(help="Damaged messages put through decoder and lane first.")] = 0,
    json: Json = False,
) -> None:
    """Kill and starve the real parts, and compare the rows with an undisturbed run, byte for byte."""
    use_measuring_key()
    drivers = ("loop", "bytewax") if driver == "both" else (driver,)
    raise typer.Exit(run(rounds, fault, drivers, seed, outage, fuzz, json))
