"""Item rows a server keeps for a moment, the rows of all lanes added up."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from state import keys
from state.anchor import Anchor
from state.item_rows import MAX_NEIGHBOURS, decode_items, empty_items
from state.slot_map import SlotMap
from state.store import Store

SUMMED = ("total", "support", "repeat", "kinds", "count")


class ItemCache:
    """Decoded item rows by slot; a row older than its time to live is read again when asked for."""

    def __init__(self, capacity: int, lane_prefixes: Sequence[bytes]) -> None:
        self.rows, self.slots = empty_items(capacity), SlotMap(capacity)
        self._prefixes = lane_prefixes
        self._read_ms = np.zeros(capacity, np.int64)
        self._anchor: Anchor | None = None
        self.embedding = np.zeros((0, 0), np.float32)

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

    def ensure(self, store: Store, ids: npt.NDArray[np.uint64], now_ms: int, max_age_ms: int) -> None:
        """Have the rows of `ids` no older than `max_age_ms`; an item without a row gets zeros."""
        ids = np.unique(ids)
        known = self.slots.find(ids)
        slots = self.slots.assign(ids)
        new = known != slots
        if new.any():
            self._embed(ids[new], slots[new])
        stale = new | (now_ms - self._read_ms[slots] > max_age_ms)
        if not stale.any():
            return
        ids, slots = ids[stale], slots[stale]
        for column in self.rows:
            column[slots] = 0
        wanted = [keys.item(prefix, item) for prefix in self._prefixes for item in ids.tolist()]
        values = store.read(wanted)
        decode_items(values[: len(ids)], slots, self.rows)
        for lane in range(1, len(self._prefixes)):
            self._add(values[lane * len(ids) : (lane + 1) * len(ids)], slots)
        self._read_ms[slots] = now_ms

    def _add(self, values: list[bytes | None], slots: npt.NDArray[np.int64]) -> None:
        part = empty_items(len(slots))
        there = decode_items(values, np.arange(len(slots)), part)
        for i in np.flatnonzero(there).tolist():
            s = slots[i]
            for name in SUMMED:
                getattr(self.rows, name)[s] += getattr(part, name)[i]
            for h in range(2):
                self._add_popularity(s, h, int(part.pop_epoch[i, h]), part.pop[i, h])
            n = int(self.rows.n[s])
            merged = dict(zip(self.rows.neighbour[s, :n].tolist(), self.rows.weight[s, :, :n].T.tolist(), strict=True))
            for j in range(int(part.n[i])):
                old = merged.get(int(part.neighbour[i, j]), [0, 0, 0])
                merged[int(part.neighbour[i, j])] = [a + int(b) for a, b in zip(old, part.weight[i, :, j], strict=True)]
            kept = sorted(sorted(merged, key=lambda item: -sum(merged[item]))[:MAX_NEIGHBOURS])
            self.rows.n[s] = len(kept)
            self.rows.neighbour[s, : len(kept)] = kept
            self.rows.weight[s, :, : len(kept)] = np.array([merged[item] for item in kept]).T.reshape(3, -1)

    def _add_popularity(self, slot: int, h: int, epoch: int, sums: npt.NDArray[np.int64]) -> None:
        newest, other = int(self.rows.pop_epoch[slot, h]), self.rows.pop[slot, h]
        if epoch > newest:
            before = int(other[0]) if epoch == newest + 1 else 0
            self.rows.pop_epoch[slot, h] = epoch
            self.rows.pop[slot, h] = sums[0], sums[1] + before
        elif epoch == newest:
            self.rows.pop[slot, h] += sums
        elif epoch == newest - 1:
            self.rows.pop[slot, h, 1] += sums[0]
