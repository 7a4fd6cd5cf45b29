"""`headrace restore`: see `headrace.backup`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.backup import restore
from headrace.cli.backup import copy_and_report
from headrace.options import Json


def command(folder: Annotated[Path, typer.Argument(help="Folder of the backup.")], json: Json = False) -> None:
    """Put a backup into an empty data folder; then start `headrace up`."""
    copy_and_report(restore, folder, "restored from", json)
