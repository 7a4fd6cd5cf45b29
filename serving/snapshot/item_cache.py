"""A server's short-lived cache of item rows, each the sum of all lanes' rows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.compiled.distinct import distinct
from schemas.compiled.njit import njit
from state.anchor import Anchor
from state.rows import keys
from state.rows.item_merge import add_rows
from state.rows.item_rows import MAX_NEIGHBOURS, ItemRows, decode_items, empty_items
from state.rows.slot_map import ABSENT, SlotMap, find
from state.store.changes import ChangeFeed
from state.store.contract import RowReader


@njit()
def _due(
    table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], used_in: npt.NDArray[np.int64],
    read_ms: npt.NDArray[np.int64], written: npt.NDArray[np.bool_], heard_ms: int, ids: npt.NDArray[np.uint64],
    round_no: int, oldest_ms: int,
) -> npt.NDArray[np.uint64]:  # fmt: skip
    """Return the ids of which no row is known to be as of `oldest_ms` or later, and keep the rows of the others."""
    due, n = np.empty(len(ids), np.uint64), 0
    for i in range(len(ids)):
        slot = find(table, slot_at, ids[i])
        if slot != ABSENT:
            used_in[slot] = round_no
        if slot == ABSENT or (read_ms[slot] < oldest_ms and (written[slot] or heard_ms < oldest_ms)):
            due[n] = ids[i]
            n += 1
    return due[:n]


@njit()
def _neighbours(
    table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], rows: ItemRows, looked_ms: npt.NDArray[np.int64],
    ids: npt.NDArray[np.uint64], now_ms: int, oldest_ms: int,
) -> npt.NDArray[np.uint64]:  # fmt: skip
    """Return the neighbours of items at which nobody has looked since `oldest_ms`, and take note of the look."""
    near, n = np.empty(len(ids) * MAX_NEIGHBOURS, np.uint64), 0
    for i in range(len(ids)):
        slot = find(table, slot_at, ids[i])
        if slot != ABSENT and looked_ms[slot] < oldest_ms:
            looked_ms[slot] = now_ms
            for j in range(np.int64(rows[slot].n)):
                near[n] = rows[slot].neighbour[j]
                n += 1
    return near[:n]


class ItemCache:
    """Decoded item rows by slot.

    A row is good for a while after it was read; then it is read again when it is asked for, unless the store's change
    feed knows that nobody has written it.
    """

    def __init__(self, capacity: int, lane_prefixes: Sequence[bytes], feed: ChangeFeed) -> None:
        """The caller connects the feed of the lanes' item rows, and closes it."""
        self.rows, self.slots = empty_items(capacity), SlotMap(capacity)
        self._prefixes, self._feed = lane_prefixes, feed
        self._read_ms, self._looked_ms = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self._written = np.zeros(capacity, np.bool_)
        """Of rows: whether somebody may have written them since they were read."""
        self.read_in = np.zeros(capacity, np.int64)
        """Of rows: the number of the reading they came with."""
        self._n_readings = 0
        self._turn = 0
        """The slot from which on stale rows are looked for next."""
        self._anchor: Anchor | None = None
        self.embedding = np.zeros((0, 0), np.float32)

    def follow(self, now_ms: int) -> None:
        """Take note of what has been written."""
        written = self._feed.poll(now_ms)
        if written is None:
            self._written[:] = True
        elif written:
            slots = self.slots.find(np.array([keys.hash_of(key) for key in written], np.uint64))
            self._written[slots[slots != ABSENT]] = True

    def stale(self, n: int, oldest_ms: int) -> npt.NDArray[np.uint64]:
        """Return `n` items whose rows were read before `oldest_ms` and may have been written since, all in turn."""
        there = len(self.slots)
        at = np.flatnonzero(self._written[:there] & (self._read_ms[:there] < oldest_ms))
        later = at[at >= self._turn]
        at = (later if len(later) else at)[:n]
        self._turn = int(at[-1]) + 1 if len(at) else 0
        return self.slots.id_of[at]

    def use_anchor(self, anchor: Anchor) -> None:
        """Keep the embedding of every cached item beside its row, from this anchor on."""
        self._anchor = anchor
        d = 0 if anchor.embedding is None else anchor.embedding.shape[1]
        self.embedding = np.zeros((len(self._read_ms) if d else 0, d), np.float32)
        self._embed(self.slots.id_of[: len(self.slots)], np.arange(len(self.slots)))

    def _embed(self, ids: npt.NDArray[np.uint64], slots: npt.NDArray[np.int64]) -> None:
        if len(self.embedding) and self._anchor is not None and self._anchor.embedding is not None:
            row = self._anchor.row_of(ids)
            self.embedding[slots] = np.where(row[:, None] >= 0, self._anchor.embedding[row], 0)

    def ensure(self, store: RowReader, ids: npt.NDArray[np.uint64], now_ms: int, max_age_ms: int) -> None:
        """Cache the rows of `ids`, at most `max_age_ms` old; a row that does not exist is zeros.

        Ids may repeat.
        """
        slots = self.slots
        due = _due(
            slots.table, slots.slot_at, slots.used_in, self._read_ms, self._written, self._feed.heard_ms, ids,
            slots.round_no, now_ms - max_age_ms,
        )  # fmt: skip
        if len(due):
            self._read(store, distinct(due), now_ms)

    def ensure_near(self, store: RowReader, ids: npt.NDArray[np.uint64], now_ms: int, max_age_ms: int) -> None:
        """Cache the rows of the neighbours of `ids` (whose own are cached), at most about twice `max_age_ms` old."""
        slots = self.slots
        near = _neighbours(
            slots.table, slots.slot_at, self.rows, self._looked_ms, ids, now_ms, now_ms - max_age_ms
        )  # fmt: skip
        if len(near):
            self.ensure(store, near, now_ms, max_age_ms)

    def _read(self, store: RowReader, ids: npt.NDArray[np.uint64], now_ms: int) -> None:
        known = self.slots.find(ids)
        slots = self.slots.assign(ids)
        new = known != slots
        if new.any():
            self._embed(ids[new], slots[new])
        self.rows[slots] = 0
        wanted = [keys.item(prefix, item) for prefix in self._prefixes for item in ids.tolist()]
        values = store.read(wanted)
        decode_items(values[: len(ids)], slots, self.rows)
        if len(self._prefixes) > 1:
            others = empty_items(len(values) - len(ids))
            there = decode_items(values[len(ids) :], np.arange(len(others)), others)
            add_rows(self.rows, slots, others, there)
        self._n_readings += 1
        self._read_ms[slots], self._looked_ms[slots], self._written[slots] = now_ms, 0, False
        self.read_in[slots] = self._n_readings
