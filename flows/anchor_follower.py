"""Follows published anchors: refolds every user of the lanes, then moves the live pointer.

A refold is cut into chunks that run between batches, so events keep flowing. A
user who acts meanwhile gets vectors for both anchors. When every lane of the
generation says ready, the pointer moves and servers follow; the vectors of the
anchor before are removed afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from flows.lane import Changes, Lane
from state import keys
from state.anchor import Anchor, AnchorDamaged, load_anchor
from state.row_block import RowSet
from state.store import Store

CLEAN_UP_AFTER_MS = 5_000
"""Servers follow the pointer within a second; until then they read the old vectors."""

log = structlog.get_logger()


class AnchorFollower:
    """One process's part in an anchor switch. Call `step` between batches."""

    def __init__(
        self, store: Store, lanes: Sequence[Lane], generation: str, n_lanes: int, anchors_dir: Path,
        commit: Callable[[Lane, Changes], None], may_switch: bool = True,
    ) -> None:  # fmt: skip
        """`may_switch` False: refold, but leave the pointer to the flows of the live generation."""
        self._may_switch = may_switch
        self._store, self._lanes, self._anchors_dir, self._commit = store, lanes, anchors_dir, commit
        self._ready_keys = [keys.anchor_ready(keys.prefix(generation, lane)) for lane in range(n_lanes)]
        self._live: Anchor | None = None
        self._pending: Anchor | None = None
        self._refused: str | None = None
        self._work: Iterator[tuple[Lane, Changes]] = iter(())
        self._clean_up: tuple[int, str] | None = None
        self.n_refolded = 0

    @property
    def refolding(self) -> bool:
        return self._pending is not None

    def open(self) -> None:
        """Take up from the store's pointers; a refold that was cut short starts again."""
        live, published = self._pointers()
        self._live = self._load(live) if live else None
        self._pending, self._work = None, iter(())
        self._use()
        self._begin(published)

    def step(self, now_ms: int) -> None:
        """Do one chunk of whatever is due: a refold, the switch, the clean-up, or a look at the pointers."""
        if self._pending is not None:
            self._refold_chunk(now_ms)
        elif self._clean_up is not None and now_ms >= self._clean_up[0]:
            self._remove_vectors(self._clean_up[1])
            self._clean_up = None
        else:
            live, published = self._pointers()
            if live is not None and (self._live is None or self._live.version != live):
                self._live = self._load(live)  # another process moved the pointer
                self._use()
            self._begin(published)

    def _pointers(self) -> tuple[str | None, str | None]:
        values = self._store.read([keys.ANCHOR_LIVE, keys.ANCHOR_PUBLISHED])
        live, published = (value.decode() if value else None for value in values)
        return live, published

    def _load(self, version: str) -> Anchor | None:
        try:
            return load_anchor(self._anchors_dir / version)
        except (AnchorDamaged, OSError) as error:
            if version != self._refused:
                log.error("anchor cannot be loaded; the one before stays", anchor=version, error=str(error))
            self._refused = version
            return None

    def _use(self) -> None:
        anchors = [anchor for anchor in (self._live, self._pending) if anchor is not None]
        for lane in self._lanes:
            lane.use_anchors(*anchors)

    def _begin(self, published: str | None) -> None:
        if published is None or published == self._refused or (self._live and self._live.version == published):
            return
        self._pending = self._load(published)
        if self._pending is not None:
            self._use()
            self._work = self._refold(self._pending)
            self.n_refolded = 0
            log.info("refold begins", anchor=published)

    def _refold(self, anchor: Anchor) -> Iterator[tuple[Lane, Changes]]:
        for lane in self._lanes:
            for changes in lane.refold(anchor):
                yield lane, changes

    def _refold_chunk(self, now_ms: int) -> None:
        assert self._pending is not None
        for lane, changes in self._work:
            self._commit(lane, changes)
            self.n_refolded += len(changes.rows)
            return
        version = self._pending.version
        if any(value != version.encode() for value in self._store.read(self._ready_keys)):
            return  # another process still refolds its lanes
        if not self._may_switch and self._pointers()[0] != version:
            return
        if self._live is not None:
            self._clean_up = now_ms + CLEAN_UP_AFTER_MS, self._live.version
        if self._may_switch:
            self._store.write({keys.ANCHOR_LIVE: version.encode()})
        self._live, self._pending = self._pending, None
        self._use()
        log.info("anchor is live", anchor=version, users=self.n_refolded)

    def _remove_vectors(self, version: str) -> None:
        for lane in self._lanes:
            for found in self._store.scan(lane.prefix + b"v:" + version.encode() + b":"):
                self._commit(lane, Changes(lane.positions, lane.positions, RowSet(dict.fromkeys(found))))
