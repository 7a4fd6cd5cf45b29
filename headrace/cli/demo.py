"""`headrace demo`: a year of shopping, folded in a minute."""

from typing import Annotated

import typer

from headrace.console import read_settings
from headrace.demo import run


def command(
    end: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
) -> None:
    """A year of real grocery shopping becomes live recommendations."""
    raise typer.Exit(run(read_settings(), end))
