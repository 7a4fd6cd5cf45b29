"""`headrace drop`: a generation that is no longer needed."""

import typer

from headrace.cli.generations import drop
from headrace.console import read_settings
from headrace.options import Json


def command(generation: str, json: Json = False) -> None:
    """Remove a generation's rows, in chunks. The live one cannot be dropped."""
    raise typer.Exit(drop(read_settings(), generation, json))
