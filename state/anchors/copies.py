"""The folder of copies: each one complete or not there, whoever else fetches at the same time, and only a few."""

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

from state.anchor import MANIFEST, anchor_versions

ABANDONED_S = 3600.0
"""A copy under way that no byte was added to for so long was left by a process that died."""


class Copies:
    """Copies of anchors in a folder on this machine. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, version: str) -> Path | None:
        """Return the folder of a complete copy, and note that it is in use."""
        path = self.folder / version
        try:
            (path / MANIFEST).stat()
        except OSError:
            return None
        with contextlib.suppress(OSError):  # another user's copy, or a disk that is only read
            os.utime(path / MANIFEST)
        return path

    def begin(self, version: str) -> Path:
        """Return a new folder to copy into; `complete` or `drop` it."""
        path = self.folder / f".{version}.{os.getpid()}.{secrets.token_hex(4)}"
        path.mkdir(parents=True)
        return path

    def complete(self, work: Path, version: str) -> Path:
        """Make what was copied the copy of a version, unless another process was faster; return the copy."""
        path = self.folder / version
        try:
            work.rename(path)
        except OSError:
            if self.find(version) is None:
                raise
            self.drop(work)
        return path

    def drop(self, path: Path) -> None:
        """Delete a folder, which is out of sight at once; programs that have its files open keep them."""
        gone = self.folder / f".gone.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            path.rename(gone)
        except OSError:  # another process was faster
            return
        shutil.rmtree(gone, ignore_errors=True)

    def keep(self, *versions: str) -> None:
        """Drop all copies but these and the one used last before them, and what dead processes left half done."""
        used = {name: _used(self.folder / name / MANIFEST) for name in anchor_versions(self.folder)}
        others = sorted((name for name in used if name not in versions), key=lambda name: (used[name], name))
        for name in others[:-1]:
            self.drop(self.folder / name)
        for path in self.folder.glob(".*") if self.folder.exists() else ():
            newest = max((_used(one) for one in (path, *path.glob("*"))), default=0.0)
            if path.is_dir() and time.time() - newest > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
