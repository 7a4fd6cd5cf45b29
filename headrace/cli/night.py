"""`headrace night`: the scheduler of the nightly training, as a process of its own."""

import threading

import structlog
import typer

from flows.signals import stop_on_signals
from headrace.console import OK, WRONG_USAGE, err, read_settings
from headrace.night import Night

log = structlog.get_logger()


def command() -> None:
    """Train at the set hour of every night, and once when there is first enough to learn from."""
    settings = read_settings()
    if settings.night_at == "off":
        err.print("HEADRACE_NIGHT_AT is off: there is no hour to train at")
        raise typer.Exit(WRONG_USAGE)
    stopping = threading.Event()
    stop_on_signals(stopping)
    log.info("training every night", at=settings.night_at, zone=settings.night_zone)
    Night(settings, log.info).run(stopping)
    raise typer.Exit(OK)
