"""A lane's cached user rows: what the fold asks of them."""

import numpy as np

from flows.row_table import Ids, RowTable, Slots, in_parts
from state import keys
from state.row_block import RowBlock
from state.store import Store
from state.user_rows import decode_users, empty_users, pack_users

LATEST = 6
"""History events whose items are fetched before a batch; the fold asks again for the few it lacks."""


class UserTable(RowTable):
    """User rows by slot."""

    def __init__(self, capacity: int, store: Store, lane_prefix: bytes) -> None:
        self.rows = empty_users(capacity)
        self._prefix = lane_prefix
        super().__init__(
            [self.rows],
            store,
            lambda user: keys.user(lane_prefix, user),
            lambda values, slots: decode_users(values, slots, self.rows),
        )

    def load(self, ids: Ids) -> Slots:
        """Return the slots of distinct ids, their rows cached."""
        return self._cache(ids)

    def load_each(self, ids: Ids) -> Slots:
        """Return a slot for every element of `ids`, which may repeat."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        return self.load(distinct)[inverse]

    def ids_of(self, slots: Slots) -> Ids:
        return self._slots.id_of[slots]

    def latest_items(self, slots: Slots) -> Ids:
        """Return the items of the users' latest history events (0 where there are fewer)."""
        at = self.rows["n"][slots].astype(np.int64)[:, None] - 1 - np.arange(LATEST)
        return np.where(at >= 0, self.rows["item"][slots[:, None], np.maximum(at, 0)], 0).ravel()

    def all_items(self, slot: int) -> Ids:
        return self.rows["item"][slot, : self.rows["n"][slot]]

    def blocks(self, slots: Slots) -> list[RowBlock]:
        """Return the encoded rows of `slots`."""
        prefix = keys.user_prefix(self._prefix)
        return [RowBlock(prefix, self.ids_of(part), *pack_users(self.rows, part)) for part in in_parts(slots)]
