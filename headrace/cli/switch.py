"""`headrace switch`: which generation is live."""

import typer

from headrace.cli.generations import switch
from headrace.console import read_settings
from headrace.options import Json


def command(generation: str, json: Json = False) -> None:
    """Make a generation the live one; flows and servers follow within a second."""
    raise typer.Exit(switch(read_settings(), generation, json))
