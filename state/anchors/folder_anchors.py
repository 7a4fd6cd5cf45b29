"""Anchors in a folder that all programs reach, a disk or a network file system: nothing is copied."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from state.anchor import MANIFEST, AnchorDamaged, anchor_versions
from state.anchors.contract import VERSION, AnchorMissing, AnchorsUnavailable


class FolderAnchors:
    """An `AnchorStore` whose only copy of an anchor is the original.

    >>> FolderAnchors(Path("/nowhere"), made_later=True).versions()
    []
    """

    def __init__(self, folder: Path, made_later: bool = False) -> None:
        """`made_later`: a folder that is not there is one in which nothing was published yet."""
        self.name, self.folder, self._made_later = str(folder), folder, made_later

    def prepare(self) -> None:
        """Make the folder if need be, and see that files can be written. Raises AnchorsUnavailable."""
        probe = self.folder / f".probe.{secrets.token_hex(4)}"
        with self._named_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()

    def versions(self) -> list[str]:
        """Return the versions that are published, oldest first. Raises AnchorsUnavailable."""
        with self._named_errors():
            if not self._made_later:
                self.folder.stat()
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
        try:
            (path / MANIFEST).stat()
        except OSError:
            return None
        return path

    def fetch(self, version: str) -> Path:
        """Return the anchor's folder. Raises AnchorMissing, AnchorsUnavailable."""
        if not VERSION.fullmatch(version):
            raise AnchorMissing(f"{version!r} is no name of an anchor")
        path = self.folder / version
        with self._named_errors():
            try:
                (path / MANIFEST).stat()
            except FileNotFoundError:
                raise AnchorMissing(f"there is no anchor {version} in {self.name}") from None
        return path

    def discard(self, version: str) -> bool:
        """Return False: an original is not dropped, however damaged."""
        return False

    def keep(self, *versions: str) -> None:
        """Do nothing: there are no copies."""

    def remove(self, version: str) -> None:
        """Delete the anchor's folder; programs that have its files open keep them. Raises AnchorMissing."""
        gone = self.folder / f".{version}.{secrets.token_hex(4)}"
        with self._named_errors():
            self.fetch(version).rename(gone)
            shutil.rmtree(gone)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise AnchorsUnavailable, with the folder's name, for what the disk refuses."""
        try:
            yield
        except OSError as error:
            raise AnchorsUnavailable(f"anchors in {self.name}: {error.strerror or error}") from error
