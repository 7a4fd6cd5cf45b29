"""A lane's cache of user rows."""

import numpy as np

from flows.fold.row_table import Ids, RowTable, Slots, in_parts
from schemas.compiled.njit import njit
from schemas.compiled.prefetch import AHEAD, prefetch_row
from state.rows import keys
from state.rows.user_rows import UserRows, decode_users, empty_users
from state.store.contract import Store
from state.store.row_block import RowBlock
from state.store.row_deltas import pack_changed_users

LATEST = 6
"""History events whose items are fetched before a batch; the few others are fetched when the fold needs them."""


@njit(nogil=True)
def _latest_items(rows: UserRows, slots: Slots) -> Ids:
    out = np.zeros(len(slots) * LATEST, np.uint64)
    for k in range(len(slots)):
        if k + AHEAD < len(slots):
            prefetch_row(rows, slots[k + AHEAD])
        n = np.int64(rows[slots[k]].n)
        for j in range(min(int(n), LATEST)):
            out[k * LATEST + j] = rows[slots[k]].item[n - 1 - j]
    return out


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
        """Return the id hashes of the users in these slots."""
        return self._slots.id_of[slots]

    def latest_items(self, slots: Slots) -> Ids:
        """Return the items of the users' latest history events (0 where there are fewer)."""
        return _latest_items(self.rows, slots)

    def all_items(self, slot: int) -> Ids:
        """Return the items (id hashes) of a user's whole history, oldest first."""
        return self.rows["item"][slot, : self.rows["n"][slot]]

    def blocks(self, slots: Slots) -> list[RowBlock]:
        """Return the encoded rows of `slots`, which have to be committed next."""
        prefix, blocks = keys.user_prefix(self._prefix), []
        for part in in_parts(slots):
            packed, differences = pack_changed_users(self.rows, part)
            blocks.append(RowBlock(prefix, self.ids_of(part), *packed, differences))
        return blocks
