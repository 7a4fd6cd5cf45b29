"""Anchors in a folder that all programs reach, a disk or a network file system: nothing is copied."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import orjson

from state.anchor import MANIFEST, AnchorDamaged, anchor_versions
from state.anchors.contract import AnchorMissing


class FolderAnchors:
    """An `AnchorStore` whose only copy of an anchor is the original.

    >>> FolderAnchors(Path("/nowhere")).versions()
    []
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = str(folder), folder

    def versions(self) -> list[str]:
        """Return the versions that are published, oldest first."""
        return anchor_versions(self.folder)

    def read_json(self, version: str, file: str) -> dict[str, Any]:
        """Return a JSON file of an anchor. Raises AnchorMissing, AnchorDamaged."""
        path = self.fetch(version) / file
        try:
            return dict(orjson.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise AnchorDamaged(f"anchor {version}: {file} cannot be read: {error}") from error

    def publish(self, version: str) -> None:
        """Do nothing: the anchor was renamed into this folder when it was complete."""

    def here(self, version: str) -> Path | None:
        """Return the anchor's folder, None where it has no manifest."""
        path = self.folder / version
        return path if (path / MANIFEST).exists() else None

    def fetch(self, version: str) -> Path:
        """Return the anchor's folder. Raises AnchorMissing."""
        path = self.here(version)
        if path is None:
            raise AnchorMissing(f"there is no anchor {version} in {self.name}")
        return path

    def discard(self, version: str) -> bool:
        """Return False: an original is not dropped, however damaged."""
        return False

    def keep(self, *versions: str) -> None:
        """Do nothing: there are no copies."""

    def remove(self, version: str) -> None:
        """Delete the anchor's folder; programs that have its files open keep them. Raises AnchorMissing."""
        gone = self.folder / f".{version}.{secrets.token_hex(4)}"
        self.fetch(version).rename(gone)
        shutil.rmtree(gone)
