"""The run file of a data folder: where what `headrace up` started answers, and what a second terminal needs to join it.

`up` holds a lock of the folder for as long as it lives, so that a file which a killed one left behind is recognised.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson

NAME = "run.json"
LOCK = "up.lock"
LOCK_WAIT_S = 1.0
"""A command that looks whether `up` runs holds the lock for a moment."""


class AlreadyRunning(Exception):
    """Another `headrace up` holds the folder."""


def write_run_file(folder: Path, body: dict[str, Any]) -> None:
    """Write where everything answers, for the owner only; a reader finds the old body or the new one, never a part."""
    fresh = folder / f"{NAME}.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(orjson.dumps(body))
    fresh.replace(folder / NAME)


def read_run_file(folder: Path) -> dict[str, Any] | None:
    """Return what the file holds (`redis_url`, `http`, `grpc`, `pids`, `settings`), None where there is none."""
    try:
        return dict(orjson.loads((folder / NAME).read_bytes()))
    except FileNotFoundError:
        return None


def remove_run_file(folder: Path) -> None:
    """Remove the file, if it is there."""
    (folder / NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold the folder for the time of the block, as `headrace up` does; yield whether it is still there.

    Raises AlreadyRunning.
    """
    with (folder / LOCK).open("w") as lock:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _taken(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise AlreadyRunning(f"another `headrace up` already runs on {folder}")
            time.sleep(0.05)
        yield lambda: _is_at(lock, folder / LOCK)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def is_running(folder: Path) -> bool:
    """Return whether a `headrace up` holds the folder."""
    try:
        with (folder / LOCK).open() as lock:
            return not _taken(lock, fcntl.LOCK_SH)
    except OSError:  # nobody ever ran here, or another user's folder
        return False


def _taken(lock: IO[str], how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
