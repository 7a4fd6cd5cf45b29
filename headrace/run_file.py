"""The run file of a data folder: where what `headrace up` started answers. It is there while `up` runs."""

from pathlib import Path
from typing import Any

import orjson

NAME = "run.json"


def write_run_file(folder: Path, body: dict[str, Any]) -> None:
    """Write where everything answers; a reader finds the old body or the new one, never a part."""
    fresh = folder / f"{NAME}.new"
    fresh.write_bytes(orjson.dumps(body))
    fresh.replace(folder / NAME)


def read_run_file(folder: Path) -> dict[str, Any] | None:
    """Return where everything answers (`redis_url`, `http`, `grpc`, `pids` by name), None where nothing runs."""
    try:
        return dict(orjson.loads((folder / NAME).read_bytes()))
    except FileNotFoundError:
        return None


def remove_run_file(folder: Path) -> None:
    """Remove the file, if it is there."""
    (folder / NAME).unlink(missing_ok=True)
