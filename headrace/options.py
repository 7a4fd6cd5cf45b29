"""Options that several commands have."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs; the median one is printed, and all their rates.")]
