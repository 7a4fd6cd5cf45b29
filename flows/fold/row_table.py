"""A lane's bounded write-through cache of the rows of one kind."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from state.rows.slot_map import ABSENT, SlotMap
from state.store.contract import Store

Ids = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int64]
ROWS_A_BLOCK = 16_000


def in_parts(slots: Slots) -> Iterator[Slots]:
    """Yield slices of `slots` whose encoded rows fit a buffer that malloc keeps for the next batch.

    Buffers above 32 MiB are mapped anew each time, and touching fresh pages costs more than encoding.
    """
    for first in range(0, len(slots), ROWS_A_BLOCK):
        yield slots[first : first + ROWS_A_BLOCK]


class RowTable:
    """Rows cached in slots by id. A round is one batch (`state.rows.slot_map`)."""

    def __init__(
        self,
        columns: Sequence[npt.NDArray[Any]],
        store: Store,
        key_of: Callable[[int], bytes],
        decode: Callable[[list[bytes | None], Slots], object],
    ) -> None:
        self._columns, self._store, self._key_of, self._decode = columns, store, key_of, decode
        self._slots = SlotMap(len(columns[0]))
        self._counts = (0, 0)

    def clear(self) -> None:
        """Empty the cache."""
        self._slots.clear()

    def begin_round(self) -> None:
        """Begin a batch: what it loads stays cached until the next one begins."""
        self._slots.begin_round()

    def take_counts(self) -> tuple[int, int]:
        """Return how many look-ups (found a row, had to read it) since the last call."""
        counts, self._counts = self._counts, (0, 0)
        return counts

    def drop(self, row: int) -> None:
        """Make a cached row that of an id never seen."""
        slot = self._slots.find(np.array([row], np.uint64))[0]
        if slot != ABSENT:
            for column in self._columns:
                column[slot] = 0

    def _count(self, found: int, missing: int = 0) -> None:
        self._counts = (self._counts[0] + found, self._counts[1] + missing)

    def _cache(self, ids: Ids) -> Slots:
        """Return the slots of distinct ids, reading those not cached; an id without a row gets zeros."""
        missing = ids[self._slots.find(ids) == ABSENT]
        slots = self._slots.assign(ids)
        self._count(len(ids) - len(missing), len(missing))
        if len(missing):
            new = self._slots.find(missing)
            for column in self._columns:
                column[new] = 0
            self._decode(self._store.read([self._key_of(row) for row in missing.tolist()]), new)
        return slots
