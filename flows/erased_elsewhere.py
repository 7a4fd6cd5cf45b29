"""Erases users in the generations that no flow folds.

A lane erases a user when it reads the erasure in the log. A generation that was live before, or one that waits beside
the live one, may get there late or never. So a flow of the live generation, before it commits an erasure, erases the
user in every generation without an owner, at the positions where that one is. If such a generation is folded again and
reads the erasure, only what the user did between these positions and the erasure is left to erase.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

import structlog

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.settings import FlowSettings, lane_settings
from state.generations import Generation, generation_names, read_generation
from state.rows import keys
from state.settings import BadSettings
from state.store.contract import Fenced, Store

AT_ONCE = 100
"""Users of one commit."""
ROWS = 20_000
"""Rows a lane caches for one such commit: a user's history has fifty items."""

log = structlog.get_logger()


class ErasedElsewhere:
    """Erases users in the generations that nobody folds."""

    def __init__(self, store: Store, settings: FlowSettings) -> None:
        self._store, self._settings = store, settings
        self._names: list[str] | None = None
        self._named_at: bytes | None = None
        """The mark of the last change when the names were read: reading them scans all keys."""
        self._versions: dict[bytes, frozenset[str]] = {}
        """The anchors there are vectors for, by prefix of a lane that nobody folds."""

    def erase(self, users: Collection[int], folded: str) -> None:
        """Erase users (id hashes) in all generations but the one that is `folded` here.

        Raises StoreUnavailable; it is safe to repeat.
        """
        mark = self._store.read([keys.GENERATION_CHANGED])[0]
        if self._names is None or mark != self._named_at:
            self._names, self._named_at = generation_names(self._store), mark
        for name in self._names:
            generation = read_generation(self._store, name)
            if generation is None or name == folded:
                continue
            try:
                settings = lane_settings(generation.settings(self._settings))
            except BadSettings as error:  # made with other ids: nobody knows whose rows are whose
                log.error("erased users may be left in a generation; drop it", generation=name, error=str(error))
                continue
            for lane, prefix in enumerate(generation.prefixes):
                mine = sorted(user for user in users if user % settings.n_lanes == lane)
                if self._store.read([keys.owner(prefix)])[0] is not None:
                    self._versions.pop(prefix, None)  # its owner reads the erasure in the log
                elif mine:
                    self._erase(generation, settings, lane, mine)

    def _erase(self, generation: Generation, settings: LaneSettings, number: int, users: list[int]) -> None:
        small = replace(settings, max_cached_users=ROWS, max_cached_items=ROWS)
        lane = Lane(small, self._store, generation.name, number)
        try:
            lane.open()
            lane.use_anchors(others=self._anchors_of(lane.prefix))
            for first in range(0, len(users), AT_ONCE):
                changes = lane.erase(users[first : first + AT_ONCE])
                self._store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
            log.info("users erased in a generation that nobody folds", generation=generation.name, users=len(users))
        except Fenced:
            log.info("a generation has an owner again, who erases users", generation=generation.name)

    def _anchors_of(self, prefix: bytes) -> Iterable[str]:
        """Return the anchors a lane has vectors for: its keys are looked through once, since nobody writes them."""
        if prefix not in self._versions:
            vectors = (key for found in self._store.scan(keys.vectors_prefix(prefix)) for key in found)
            self._versions[prefix] = frozenset(keys.anchor_of(key) for key in vectors)
        return self._versions[prefix]
