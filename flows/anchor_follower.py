"""Follows published anchors: refolds every user of the lanes, then moves the live pointer.

A refold is cut into chunks that run between batches, so events keep flowing. A
user who acts meanwhile gets vectors for both anchors. When every lane of the
generation says ready, the pointer moves and servers follow.

Vectors of anchors that are neither live nor published are removed after every
start and after every switch, whatever was cut short before: the lanes' keys are
looked through, some at a time between batches.

A lane may move here from a process that refolded it, before the published anchor is
on this machine. It is ready no more then: nobody keeps those vectors up to date.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import structlog

from flows.fold.changes import Changes
from flows.fold.lane import Lane
from state.anchor import Anchor, AnchorDamaged, load_anchor
from state.anchors.fetcher import AnchorFetcher
from state.rows import keys
from state.store.contract import Store
from state.store.row_block import RowSet

CLEAN_UP_AFTER_MS = 5_000
"""Servers follow the pointer within a second; until then they read the old vectors."""

CLEAN_UP_AT_ONCE_S = 0.005
"""How long a step looks for vectors to remove."""

log = structlog.get_logger()


class AnchorFollower:
    """One process's part in an anchor switch. Call `step` between batches."""

    def __init__(
        self, store: Store, lanes: Sequence[Lane], generation: str, n_lanes: int, anchors: AnchorFetcher,
        commit: Callable[[Lane, Changes], None], may_switch: bool = True,
    ) -> None:  # fmt: skip
        """`may_switch` False: refold, but leave the pointer to the flows of the live generation."""
        self._may_switch = may_switch
        self._store, self._lanes, self._anchors, self._commit = store, lanes, anchors, commit
        self._ready_keys = [keys.anchor_ready(keys.prefix(generation, lane)) for lane in range(n_lanes)]
        self._live: Anchor | None = None
        self._pending: Anchor | None = None
        self._refused = set[str]()
        self._work: Iterator[tuple[Lane, Changes]] = iter(())
        self._live_version: str | None = None
        self._published: str | None = None
        """The pointers, also while such an anchor is not here or cannot be loaded."""
        self._unclean, self._clean_up_ms = True, 0
        """Whether there may be vectors to remove, and from when on; 0: from a while after the next step."""
        self._cleaning: Iterator[None] | None = None
        self.n_refolded = 0

    @property
    def refolding(self) -> bool:
        """Whether an anchor is being refolded."""
        return self._pending is not None

    @property
    def busy(self) -> bool:
        """Whether there is so much to do that `step` wants to be called between any two batches."""
        return self._pending is not None or self._cleaning is not None

    def open(self) -> None:
        """Take up from the store's pointers; a refold or a clean-up that was cut short starts again."""
        live, published = self._pointers()
        self._pending, self._work = None, iter(())
        self._take_live(live)
        self._begin(published)

    def step(self, now_ms: int) -> None:
        """Do one chunk of whatever is due: a refold, the switch, the clean-up, or a look at the pointers."""
        if self._unclean and self._clean_up_ms == 0:
            self._clean_up_ms = now_ms + CLEAN_UP_AFTER_MS
        if self._pending is not None:
            self._refold_chunk()
            return
        live, published = self._pointers()
        if live is not None and live != self._live_version:
            self._take_live(live)  # another process moved the pointer
        elif self._misses_live:
            self._load_live()
        self._begin(published)
        if self._pending is None and self._unclean and 0 < self._clean_up_ms <= now_ms and not self._misses_published:
            self._clean_some()

    def _take_live(self, live: str | None) -> None:
        self._live_version = live
        self._load_live()
        self._clean_later()

    def _load_live(self) -> None:
        self._live = self._load(self._live_version) if self._live_version else None
        self._use()

    @property
    def _misses_live(self) -> bool:
        """Whether the live anchor is on its way to this machine: its vectors are written when it is here."""
        return self._live is None and self._live_version is not None and self._live_version not in self._refused

    @property
    def _misses_published(self) -> bool:
        """Whether the next anchor is on its way to this machine."""
        return self._published not in (None, self._live_version, *self._refused)

    def _clean_later(self) -> None:
        self._unclean, self._clean_up_ms, self._cleaning = True, 0, None

    def _pointers(self) -> tuple[str | None, str | None]:
        values = self._store.read([keys.ANCHOR_LIVE, keys.ANCHOR_PUBLISHED])
        live, published = (value.decode() if value else None for value in values)
        return live, published

    def _load(self, version: str) -> Anchor | None:
        """Return the anchor; None while it is not here, and where it was refused."""
        if version in self._refused:
            return None
        try:
            return self._anchors.load(version, load_anchor)
        except (AnchorDamaged, OSError) as error:
            log.error("anchor cannot be loaded; the one before stays", anchor=version, error=str(error))
            self._refused.add(version)
            return None

    def _use(self) -> None:
        anchors = [anchor for anchor in (self._live, self._pending) if anchor is not None]
        others = [version for version in (self._live_version, self._published) if version is not None]
        for lane in self._lanes:
            lane.use_anchors(*anchors, others=others, live_is_missing=self._misses_live)

    def _begin(self, published: str | None) -> None:
        if published != self._published:
            self._published = published
            self._use()
        if published is None or published == self._live_version:
            return
        self._pending = self._load(published)
        if self._pending is None:
            self._take_back_ready(published)
        else:
            self._cleaning = None  # which would take the new vectors for old ones
            self._use()
            self._work = self._refold(self._pending)
            self.n_refolded = 0
            log.info("refold begins", anchor=published)

    def _take_back_ready(self, version: str) -> None:
        """Remove the ready marks of lanes refolded elsewhere: users who act now get no vector for the anchor."""
        ready = self._store.read([keys.anchor_ready(lane.prefix) for lane in self._lanes])
        for lane, value in zip(self._lanes, ready, strict=True):
            if value == version.encode():
                gone = RowSet({keys.anchor_ready(lane.prefix): None})
                self._commit(lane, Changes(lane.positions, lane.positions, gone, in_parts=True))
                log.info("lane is not ready any more: the anchor is not on this machine", anchor=version)

    def _refold(self, anchor: Anchor) -> Iterator[tuple[Lane, Changes]]:
        for lane in self._lanes:
            for changes in lane.refold(anchor):
                yield lane, changes

    def _refold_chunk(self) -> None:
        assert self._pending is not None
        for lane, changes in self._work:
            self._commit(lane, changes)
            self.n_refolded += len(changes.rows)
            return
        version = self._pending.version
        live, published = self._pointers()
        ready = all(value == version.encode() for value in self._store.read(self._ready_keys))
        if live != version and not ready and published not in (None, version):  # others refold the next one already
            self._pending = None
            self._take_live(live)
            self._begin(published)
            return
        if live != version and not (ready and self._may_switch):
            return  # another process still refolds its lanes, or others move the pointer
        if live != version:
            self._store.write({keys.ANCHOR_LIVE: version.encode()})
        self._live, self._live_version, self._pending = self._pending, version, None
        self._use()
        self._clean_later()
        log.info("anchor is live", anchor=version, users=self.n_refolded)

    def _clean_some(self) -> None:
        self._cleaning = self._cleaning or self._clean()
        until = time.perf_counter() + CLEAN_UP_AT_ONCE_S
        for _ in self._cleaning:
            if time.perf_counter() > until:
                return
        self._unclean, self._cleaning = False, None
        self._anchors.keep(*(version for version in self._pointers() if version is not None))

    def _clean(self) -> Iterator[None]:
        """Remove the vectors of anchors that are neither live nor published, and yield again and again on the way."""
        versions = {version for version in (self._live_version, self._published) if version is not None}
        for lane in self._lanes:
            kept = tuple(keys.vector_prefix(lane.prefix, version) for version in sorted(versions))
            for found in self._store.scan(keys.vectors_prefix(lane.prefix)):
                old = [key for key in found if not key.startswith(kept)]
                if old:
                    gone = RowSet(dict.fromkeys(old))
                    self._commit(lane, Changes(lane.positions, lane.positions, gone, in_parts=True))
                yield
