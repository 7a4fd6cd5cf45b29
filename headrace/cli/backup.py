"""`headrace backup`: see `headrace.backup`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.backup import BackupFailed, back_up
from headrace.console import FAILED, OK, err, print_json, read_settings
from headrace.options import Json


def command(folder: Annotated[Path, typer.Argument(help="Folder of the backup.")], json: Json = False) -> None:
    """Copy log, rows, anchors and keys of this machine into a new folder, while everything runs."""
    settings = read_settings()
    try:
        found = back_up(settings, folder)
    except (BackupFailed, OSError) as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from None
    if json:
        print_json(found)
    else:
        err.print(f"{len(found['files'])} files copied into {folder}", markup=False, soft_wrap=True)
        for line in found["elsewhere"]:
            err.print(f"not in it: {line}", markup=False, soft_wrap=True)
    raise typer.Exit(OK)
