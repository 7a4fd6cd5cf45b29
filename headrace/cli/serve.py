"""`headrace serve`: one process that answers."""

import typer

from headrace.cli.on_request import OnRequest, wait_for_request
from headrace.console import read_settings
from serving.app.server import run_server
from serving.app.warm_up import warm_up


def command(on_request: OnRequest = False) -> None:
    """Answer requests over HTTP and gRPC, until SIGTERM or Ctrl-C."""
    settings = read_settings()
    if on_request:
        wait_for_request(settings, warm_up)
    raise typer.Exit(run_server(settings))
