"""A lane's cache of item rows, which records what a batch changed."""

import numpy as np
import numpy.typing as npt

from flows.fold.event_effects import ItemIndex
from flows.fold.row_table import Ids, RowTable, Slots, in_parts
from schemas.compiled.distinct import distinct
from schemas.events import Columns
from state.rows import keys
from state.rows.item_rows import FLAG_LISTED, decode_items, empty_items
from state.rows.slot_map import SlotMap
from state.store.contract import Store
from state.store.row_block import RowBlock
from state.store.row_deltas import pack_changed_items


class ItemTable(RowTable):
    """Item rows by slot, with marks of the round that changed them or their popularity."""

    def __init__(self, capacity: int, store: Store, lane_prefix: bytes) -> None:
        self.rows = empty_items(capacity)
        self.counted_in = np.zeros(capacity, np.int64)
        self._changed_in = np.zeros(capacity, np.int64)
        self._prefix = lane_prefix
        super().__init__(
            [self.rows],
            store,
            lambda item: keys.item(lane_prefix, item),
            lambda values, slots: decode_items(values, slots, self.rows),
        )

    @property
    def slots(self) -> SlotMap:
        """Slots of the cached items, by id hash."""
        return self._slots

    def index(self) -> ItemIndex:
        """Return the cache's index as kernels take it."""
        slots = self._slots
        return ItemIndex(slots.table, slots.slot_at, slots.used_in, self._changed_in, slots.round_no)

    def load(self, ids: Ids) -> None:
        """Cache the rows of `ids`, which may repeat or be 0."""
        missing = self._slots.keep(ids)
        self._count(found=len(ids) - len(missing))
        if len(missing):
            self._cache(distinct(missing))

    def slot_of(self, item: int) -> int:
        """Return the slot of a cached item and mark its row changed."""
        slot = int(self._slots.find(np.array([item], np.uint64))[0])
        self._changed_in[slot] = self._slots.round_no
        return slot

    def changed(self) -> Slots:
        """Return the slots this round changed."""
        return np.flatnonzero(self._changed_in[: len(self._slots)] == self._slots.round_no)

    def counted(self) -> Slots:
        """Return the slots whose popularity this round changed."""
        return np.flatnonzero(self.counted_in[: len(self._slots)] == self._slots.round_no)

    def ids_of(self, slots: Slots) -> Ids:
        """Return the id hashes of the items in these slots."""
        return self._slots.id_of[slots]

    def uncount(self) -> None:
        """Begin anew what `counted` returns."""
        self.counted_in[self.counted()] = 0

    def new_ids(self, events: Columns, payload: npt.NDArray[np.uint8]) -> list[tuple[int, str]]:
        """Return items counted for the first time, with their messages, in the order they came; mark them listed."""
        counted = self.counted()
        new = counted[self.rows["flags"][counted] & FLAG_LISTED == 0]
        if not len(new):
            return []
        self.rows["flags"][new] |= FLAG_LISTED
        items, first = np.unique(events["item"], return_index=True)
        texts = []
        for event in events[np.sort(first[np.searchsorted(items, self.ids_of(new))])]:
            start = int(event["item_start"])
            text = payload[start : start + int(event["item_length"])].tobytes().decode()
            texts.append((int(event["message"]), text))
        return texts

    def blocks(self, slots: Slots) -> list[RowBlock]:
        """Return the encoded rows of `slots`, which have to be committed next."""
        prefix, blocks = keys.item_prefix(self._prefix), []
        for part in in_parts(slots):
            packed, differences = pack_changed_items(self.rows, part)
            blocks.append(RowBlock(prefix, self.ids_of(part), *packed, differences))
        return blocks
