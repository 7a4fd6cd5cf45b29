"""Anchors brought to this machine in the background, for programs that wait for nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

import structlog

from state.anchor import AnchorDamaged
from state.anchors.contract import AnchorStore
from state.anchors.metrics import FETCHES, WAITING_SECONDS

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
T = TypeVar("T")
log = structlog.get_logger()


@dataclass
class _Wanted:
    """An anchor that is not here."""

    since_s: float
    thread: Thread | None = None
    error: Exception | None = None
    n_failed: int = 0
    next_s: float = 0.0


class AnchorFetcher:
    """Gives the folders of anchors, and fetches those that are not here. One thread calls it, as often as it likes."""

    def __init__(self, anchors: AnchorStore, now_s: Callable[[], float] = time.monotonic) -> None:
        self.anchors, self._now_s = anchors, now_s
        self._wanted: dict[str, _Wanted] = {}
        self._fetched_again = set[str]()

    def folder_of(self, version: str) -> Path | None:
        """Return the anchor's folder; None while it is not here, and then it is being fetched.

        Reads the disk only. Raises AnchorDamaged once the store's own files are found not to fit.
        """
        path = self.anchors.here(version)
        if path is not None:
            self._wanted.pop(version, None)
        else:
            self._advance(version, self._wanted.setdefault(version, _Wanted(self._now_s())))
        self._observe()
        return path

    def load(self, version: str, read: Callable[[Path], T]) -> T | None:
        """Return what `read` makes of the anchor's folder, None while it is not here.

        A copy in which `read` finds damage is fetched once more. Raises AnchorDamaged, and what else `read` raises.
        """
        path = self.folder_of(version)
        if path is None:
            return None
        try:
            return read(path)
        except (AnchorDamaged, OSError, RuntimeError) as error:
            if version in self._fetched_again or not self.anchors.discard(version):
                raise
            self._fetched_again.add(version)
            log.warning("the copy of an anchor is damaged; fetching it again", anchor=version, error=str(error))
            return None

    def failed(self, version: str) -> bool:
        """Say whether the last attempt to fetch the anchor came to nothing."""
        return version in self._wanted and self._wanted[version].n_failed > 0

    def keep(self, *versions: str) -> None:
        """Want no other anchors than these any more, and drop copies that are of no use."""
        self._wanted = {version: one for version, one in self._wanted.items() if version in versions}
        self._observe()
        self.anchors.keep(*versions)

    def _observe(self) -> None:
        now_s = self._now_s()
        WAITING_SECONDS.set(max((now_s - one.since_s for one in self._wanted.values()), default=0))

    def _advance(self, version: str, wanted: _Wanted) -> None:
        if wanted.thread is not None:
            if wanted.thread.is_alive():
                return
            wanted.thread = None
            self._take_outcome(version, wanted)
        if self._now_s() >= wanted.next_s:
            wanted.error = None
            wanted.thread = Thread(target=self._fetch, args=(version, wanted), name="anchor fetch", daemon=True)
            wanted.thread.start()

    def _fetch(self, version: str, wanted: _Wanted) -> None:
        try:
            self.anchors.fetch(version)
            FETCHES.labels("done").inc()
            log.info("anchor is on this machine", anchor=version, store=self.anchors.name)
        except Exception as error:
            wanted.error = error

    def _take_outcome(self, version: str, wanted: _Wanted) -> None:
        error, wanted.error = wanted.error, None
        if isinstance(error, AnchorDamaged):
            FETCHES.labels("damaged").inc()
            del self._wanted[version]
            raise error
        if error is not None:
            FETCHES.labels("unavailable").inc()
            pause_s = min(FIRST_PAUSE_S * 2**wanted.n_failed, LONGEST_PAUSE_S)
            wanted.n_failed, wanted.next_s = wanted.n_failed + 1, self._now_s() + pause_s
            log.warning("anchor cannot be fetched; trying again", anchor=version, seconds=pause_s, error=str(error))
