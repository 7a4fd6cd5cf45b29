"""`headrace serve`: one process that answers."""

import typer

from headrace.cli.compile_only import CompileOnly, compile_and_end
from headrace.console import read_settings
from serving.app.server import run_server
from serving.app.warm_up import warm_up


def command(compile_only: CompileOnly = False) -> None:
    """Answer requests over HTTP and gRPC, until SIGTERM or Ctrl-C."""
    settings = read_settings()
    if compile_only:
        compile_and_end(settings, warm_up)
    raise typer.Exit(run_server(settings))
