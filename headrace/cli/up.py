"""`headrace up`: everything on this machine."""

import time
from typing import Annotated

import typer

from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from headrace.console import UNAVAILABLE, err, read_settings, wants_text
from headrace.sample.fill import fill, is_empty
from headrace.settings import Settings
from headrace.supervisor.run import run


def _fill_if_empty(settings: Settings) -> None:
    """Put the sample shop onto a log that has never had an event; any other is left as it is."""
    err.quiet = not wants_text(settings)  # a progress bar is no JSON line
    log = open_log(settings.log_address, config=settings.kafka_config)
    try:
        if is_empty(log):
            fill(log, open_registry(settings), time.time_ns() // 1_000_000)
    finally:
        log.close()
        err.quiet = False


def command(
    sample: Annotated[bool, typer.Option(help="Fill an empty installation with a small invented shop first.")] = False,
) -> None:
    """Start everything in one go: Redis, the embedded log, the flow and the server. Ctrl-C stops all of it."""
    settings = read_settings(beside_up=False)
    if sample:
        try:
            _fill_if_empty(settings)
        except LogUnavailable as error:
            err.print(str(error), markup=False)
            raise typer.Exit(UNAVAILABLE) from None
    raise typer.Exit(run(settings))
