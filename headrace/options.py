"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
WriteCosts = Annotated[Path | None, typer.Option(help="Write what `headrace plan --costs` multiplies into this file.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs; the median one is printed, and all their rates.")]
