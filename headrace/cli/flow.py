"""`headrace flow`: one process that folds."""

from typing import Annotated, Literal

import typer

from flows.run import run_flow
from flows.warm_up import warm_up
from headrace.cli.on_request import OnRequest, wait_for_request
from headrace.console import read_settings


def command(
    driver: Annotated[Literal["loop", "bytewax"], typer.Option(help="What runs the fold.")] = "loop",
    on_request: OnRequest = False,
) -> None:
    """Fold the log's events into rows, until SIGTERM or Ctrl-C."""
    settings = read_settings()
    if on_request:
        wait_for_request(settings, warm_up)
    raise typer.Exit(run_flow(settings, driver))
