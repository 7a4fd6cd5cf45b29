"""`headrace up`: everything on this machine."""

import typer

from headrace.console import read_settings
from headrace.supervisor.run import run


def command() -> None:
    """Start everything in one go: Redis, the embedded log, the flow and the server. Ctrl-C stops all of it."""
    raise typer.Exit(run(read_settings(beside_up=False)))
