"""Maps ids to slots of a table of rows: the index of a bounded write-through cache.

Open addressing with linear probing over 64-bit id hashes (0 = empty). Deletion
shifts the entries behind the gap back, so there are no tombstones.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_line

ABSENT = -1


@njit_no_refcount()
def find(table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], id_hash: np.uint64) -> int:
    """Return the slot of an id, ABSENT if it has none."""
    mask = np.uint64(len(table) - 1)
    at = id_hash & mask
    while table[at] != 0:
        if table[at] == id_hash:
            return np.int64(slot_at[at])  # type: ignore[return-value]
        at = (at + np.uint64(1)) & mask
    return ABSENT


@njit_no_refcount()
def look_for(table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], id_hash: np.uint64) -> None:
    """Start fetching what `find` will read of an id first (`schemas.compiled.prefetch`)."""
    home: Any = np.int64(id_hash & np.uint64(len(table) - 1))
    prefetch_line(table, home)
    prefetch_line(slot_at, home)


@njit()
def _find_all(
    table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], ids: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    slots = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        slots[i] = find(table, slot_at, ids[i])
    return slots


@njit_no_refcount()
def _insert(table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], id_hash: np.uint64, slot: int) -> None:
    mask = np.uint64(len(table) - 1)
    at = id_hash & mask
    while table[at] != 0:
        at = (at + np.uint64(1)) & mask
    table[at] = id_hash
    slot_at[at] = slot


@njit_no_refcount()
def _remove(table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], id_hash: np.uint64) -> None:
    mask = np.uint64(len(table) - 1)
    gap = id_hash & mask
    while table[gap] != id_hash:
        gap = (gap + np.uint64(1)) & mask
    table[gap] = 0
    at = (gap + np.uint64(1)) & mask
    while table[at] != 0:
        home = table[at] & mask
        # The entry may move back only if its home does not lie between the gap and itself.
        if ((at - home) & mask) >= ((at - gap) & mask):
            table[gap], slot_at[gap] = table[at], slot_at[at]
            table[at] = 0
            gap = at
        at = (at + np.uint64(1)) & mask


@njit_no_refcount()
def _assign(
    table: npt.NDArray[np.uint64],
    slot_at: npt.NDArray[np.int32],
    id_of: npt.NDArray[np.uint64],
    used_in: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
    ids: npt.NDArray[np.uint64],
    round_no: int,
    slots: npt.NDArray[np.int64],
) -> int:
    capacity = len(id_of)
    for i in range(len(ids)):  # first keep what is there, so that making room for one id never takes another's slot
        slot = find(table, slot_at, ids[i])
        if slot != ABSENT:
            used_in[slot] = round_no
    for i in range(len(ids)):
        slot = find(table, slot_at, ids[i])
        if slot == ABSENT:
            if state[0] < capacity:
                slot = state[0]
                state[0] += 1
            else:
                # CLOCK: pass over what the last two rounds used; a full turn without a victim means "too small".
                turned = 0
                while used_in[state[1]] >= round_no - 1 and turned < capacity:
                    state[1] = (state[1] + 1) % capacity
                    turned += 1
                if turned == capacity:
                    return i
                slot = state[1]
                state[1] = (state[1] + 1) % capacity
                _remove(table, slot_at, id_of[slot])
            _insert(table, slot_at, ids[i], slot)
            id_of[slot] = ids[i]
        used_in[slot] = round_no
        slots[i] = slot
    return len(ids)


@njit()
def _keep(
    table: npt.NDArray[np.uint64],
    slot_at: npt.NDArray[np.int32],
    used_in: npt.NDArray[np.int64],
    ids: npt.NDArray[np.uint64],
    round_no: int,
) -> npt.NDArray[np.uint64]:
    missing, n = np.empty(len(ids), np.uint64), 0
    for i in range(len(ids)):
        if ids[i] != 0:
            slot = find(table, slot_at, ids[i])
            if slot == ABSENT:
                missing[n] = ids[i]
                n += 1
            else:
                used_in[slot] = round_no
    return missing[:n]


class CacheTooSmall(Exception):
    """The rows of two consecutive rounds do not fit; raise the setting for cached rows."""


class SlotMap:
    """Slots 0 … capacity-1 for ids; the least recently used give way.

    A *round* is one batch: slots used in the current or the previous round are
    never taken away, so a batch under way and the one being committed keep theirs.
    """

    def __init__(self, capacity: int) -> None:
        size = 1 << max(4, int(capacity * 2 - 1).bit_length())
        self.table = np.zeros(size, np.uint64)
        self.slot_at = np.zeros(size, np.int32)
        self.id_of = np.zeros(capacity, np.uint64)
        self.used_in = np.zeros(capacity, np.int64)
        self._state = np.zeros(2, np.int64)  # slots handed out so far, clock hand
        self.round_no = 2

    def __len__(self) -> int:
        return int(self._state[0])

    def begin_round(self) -> None:
        """Begin a round: what is used in it, and in the one before, keeps its slot."""
        self.round_no += 1

    def find(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the slot of each id, ABSENT where it has none."""
        return _find_all(self.table, self.slot_at, ids)

    def keep(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Mark the ids that have a slot as used in this round; return the others. Ids may repeat, 0 is skipped."""
        return _keep(self.table, self.slot_at, self.used_in, ids, self.round_no)

    def assign(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return a slot for each id, keeping those it has; the caller fills new ones (all columns)."""
        slots = np.empty(len(ids), np.int64)
        done = _assign(self.table, self.slot_at, self.id_of, self.used_in, self._state, ids, self.round_no, slots)
        if done < len(ids):
            raise CacheTooSmall(f"{len(self.id_of)} cached rows are too few for the ids of two batches")
        return slots

    def clear(self) -> None:
        """Remove all ids."""
        self.table[:] = 0
        self.id_of[:] = 0
        self.used_in[:] = 0
        self._state[:] = 0
