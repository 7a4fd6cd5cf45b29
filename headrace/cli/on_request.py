"""Processes that `headrace up` keeps in reserve: loaded, compiled, and waiting for a line to begin."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from headrace.console import OK
from headrace.settings import Settings
from state.id_key import use_id_key

OnRequest = Annotated[
    bool, typer.Option(hidden=True, help="Load everything, then wait for a line on standard input; end when it ends.")
]


def wait_for_request(settings: Settings, warm_up: Callable[[], None]) -> None:
    """Do what takes long at a start, then wait for a line; without one the supervisor is gone, and the process ends."""
    use_id_key(settings)
    warm_up()
    if not sys.stdin.readline():
        raise typer.Exit(OK)
