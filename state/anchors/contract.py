"""The interface of an artefact store; `folder_anchors` and `remote_anchors` implement it."""

import re
from pathlib import Path
from typing import Any, Protocol

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of versions, and of the files of one: they become names of files here, so they name no other folder."""


class AnchorsUnavailable(Exception):
    """The artefact store cannot be reached, or answers too slowly; retry later."""


class AnchorMissing(AnchorsUnavailable):
    """The artefact store has no such anchor, or not yet."""


class AnchorStore(Protocol):
    """Anchors by version, each one whole or not there.

    `headrace anchor` publishes, once a night; flows and servers fetch (through `AnchorFetcher`), once an anchor.
    Every method but `here`, `discard` and `keep` may block on the network, for as long as bytes move and for the
    store's timeout after that. They raise AnchorsUnavailable, and may be called again then. Any number of processes
    may use one address and one folder at the same time.
    """

    name: str
    """The address, as it may be logged."""
    folder: Path
    """Folder on this machine in which an anchor is written before `publish`, and read after `fetch`."""

    def prepare(self) -> None:
        """Make sure that `publish` can write, before a training of hours: writes a file and removes it."""

    def versions(self) -> list[str]:
        """Return the versions that are published, oldest first. Raises where the address itself is not there."""

    def read_json(self, version: str, file: str) -> dict[str, Any]:
        """Return a JSON file of an anchor, without the rest of it. Raises AnchorMissing, AnchorDamaged."""

    def publish(self, version: str) -> None:
        """Make the anchor in `folder` one that everybody can fetch: all of it, or nothing."""

    def here(self, version: str) -> Path | None:
        """Return the anchor's folder if it is on this machine. Reads the disk only, raises nothing."""

    def fetch(self, version: str) -> Path:
        """Bring the anchor to this machine if it is not there, and return its folder.

        Raises AnchorMissing; AnchorDamaged, naming the file, where what arrived is not what was published.
        """

    def discard(self, version: str) -> bool:
        """Drop a damaged copy, so that it can be fetched anew; return False where there is none but the original."""

    def keep(self, *versions: str) -> None:
        """Drop copies on this machine, but for these and the one used last before them."""

    def remove(self, version: str) -> None:
        """Take the anchor out of the store, for everybody. Raises AnchorMissing."""
