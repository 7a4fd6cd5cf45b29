"""`headrace flow`: one process that folds."""

from typing import Annotated

import typer

from flows.run import run_flow
from flows.warm_up import warm_up
from headrace.cli.on_request import OnRequest, wait_for_request
from headrace.console import WRONG_USAGE, err, read_settings


def command(
    driver: Annotated[str, typer.Option(help="loop or bytewax")] = "loop",
    on_request: OnRequest = False,
) -> None:
    """Fold the log's events into rows, until SIGTERM or Ctrl-C."""
    if driver not in ("loop", "bytewax"):
        err.print(f"--driver must be loop or bytewax; got {driver!r}", markup=False)
        raise typer.Exit(WRONG_USAGE)
    settings = read_settings()
    if on_request:
        wait_for_request(settings, warm_up)
    raise typer.Exit(run_flow(settings, driver))
