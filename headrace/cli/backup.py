"""`headrace backup`: see `headrace.backup`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.backup import BackupFailed, back_up
from headrace.console import FAILED, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings


def copy_and_report(copy: Callable[[Settings, Path], dict[str, Any]], folder: Path, done: str, json: bool) -> None:
    """Copy by `copy`, which returns a backup's manifest; print what was copied and what is kept elsewhere."""
    settings = read_settings()
    try:
        found = copy(settings, folder)
    except (BackupFailed, OSError) as error:
        err.print(str(error), markup=False)
        raise typer.Exit(FAILED) from None
    if json:
        print_json(found)
        return
    err.print(f"{len(found['files'])} files {done} {folder}", markup=False)
    for line in found["elsewhere"]:
        err.print(f"not in it: {line}", markup=False)


def command(folder: Annotated[Path, typer.Argument(help="Folder of the backup.")], json: Json = False) -> None:
    """Copy log, rows, anchors and keys of this machine into a new folder, while everything runs."""
    copy_and_report(back_up, folder, "copied into", json)
