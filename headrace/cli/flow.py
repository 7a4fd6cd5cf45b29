"""`headrace flow`: one process that folds."""

from typing import Annotated, Literal

import typer

from flows.run import run_flow
from flows.warm_up import warm_up
from headrace.cli.compile_only import CompileOnly, compile_and_end
from headrace.console import read_settings


def command(
    driver: Annotated[
        Literal["loop", "bytewax"], typer.Option(help="What runs the fold; loop: nothing but this program.")
    ] = "loop",
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Bytewax's worker threads; default: HEADRACE_FLOW_WORKERS"),
    ] = None,
    compile_only: CompileOnly = False,
) -> None:
    """Fold the log's events into rows, until SIGTERM or Ctrl-C."""
    settings = read_settings()
    if compile_only:
        compile_and_end(settings, warm_up)
    raise typer.Exit(run_flow(settings, driver, workers or settings.flow_workers))
