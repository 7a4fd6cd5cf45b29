"""`headrace rollback`: back to the generation before."""

import typer

from headrace.cli.generations import rollback
from headrace.console import read_settings
from headrace.options import Json


def command(json: Json = False) -> None:
    """Make the generation live again that was live before the last switch."""
    raise typer.Exit(rollback(read_settings(), json))
