"""The rows of a batch's visitors, fetched in one read of the store."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.rows import keys
from state.rows.purchase_rows import PurchaseRows, decode_older, decode_purchases, empty_purchases
from state.rows.refusal_rows import refused_items
from state.rows.user_rows import UserRows, decode_users, empty_users
from state.rows.vector_rows import decode_vector
from state.store.contract import RowReader

Hashes = npt.NDArray[np.uint64]
Vector = npt.NDArray[np.float32]
NO_HASHES: Hashes = np.zeros(0, np.uint64)
NOBODY = 0
"""The subject of a request that names neither user nor session."""


class VisitorRows(NamedTuple):
    """Rows of visitors, by place in their batch."""

    users: UserRows
    purchases: PurchaseRows | None
    """None where nobody has bought anything."""
    refused: dict[int, Hashes]
    """Items they refuse, of those who do."""
    older: dict[int, Hashes]
    """Items they bought that `purchases` has no room for, of those for whom this was requested."""

    def refused_by(self, place: int) -> Hashes:
        """Return the id hashes of the items that a visitor refuses."""
        return self.refused.get(place, NO_HASHES) if self.refused else NO_HASHES

    def bought_by(self, place: int) -> Hashes:
        """Return the id hashes of the items that a visitor bought, as far as they were requested."""
        if self.purchases is None:
            return NO_HASHES
        bought = self.purchases.item[place, : self.purchases.n[place]]
        return np.concatenate((bought, self.older[place])) if place in self.older else bought


class VisitorRead:
    """A read of visitors' rows that is under way: it is sent when this is made, and `rows` collects the answer."""

    def __init__(
        self, store: RowReader, prefixes: Sequence[bytes], subjects: Sequence[int], with_purchases: Sequence[bool],
        with_older: Sequence[bool],
    ) -> None:  # fmt: skip
        """Send the read for id hashes of users or sessions (NOBODY: none), by place in the batch.

        `prefixes`: of the keys of each lane. `with_purchases`: for whom what they bought is read; `with_older`: for
        whom of these all that they bought, however much that is.
        """
        self._n = len(subjects)
        self._somebody = [i for i, subject in enumerate(subjects) if subject != NOBODY]
        self._buyers = [i for i in self._somebody if with_purchases[i]]
        self._of_all = [i for i in self._buyers if with_older[i]]
        prefix = {i: prefixes[subjects[i] % len(prefixes)] for i in self._somebody}
        wanted = [keys.user(prefix[i], subjects[i]) for i in self._somebody]
        wanted += [keys.refusals(prefix[i], subjects[i]) for i in self._somebody]
        wanted += [keys.purchases(prefix[i], subjects[i]) for i in self._buyers]
        wanted += [keys.older_purchases(prefix[i], subjects[i]) for i in self._of_all]
        self._reading = store.begin_read(wanted)

    def rows(self) -> VisitorRows:
        """Return the rows; call it once. Raises StoreUnavailable."""
        values, n = self._reading(), len(self._somebody)
        users, purchases = empty_users(self._n), None
        decode_users(values[:n], np.array(self._somebody, np.int64), users)
        end = 2 * n + len(self._buyers)
        if any(values[2 * n : end]):
            purchases = empty_purchases(self._n)
            decode_purchases(values[2 * n : end], np.array(self._buyers, np.int64), purchases)
        refused = {i: refused_items(value) for i, value in zip(self._somebody, values[n : 2 * n], strict=True) if value}
        older = {i: decode_older(value) for i, value in zip(self._of_all, values[end:], strict=True) if value}
        return VisitorRows(users, purchases, refused, older)


class UserVectors:
    """Users' vectors of one anchor, by place in the batch: read together, or one by one when they are needed."""

    def __init__(
        self, store: RowReader, prefixes: Sequence[bytes], anchor: str | None, subjects: Sequence[int]
    ) -> None:
        """`anchor`: its version; None: there is none, and nobody has a vector."""
        self._store, self._prefixes, self._anchor, self._subjects = store, prefixes, anchor, subjects
        self._read: dict[int, Vector | None] = {}

    def read(self, places: Sequence[int]) -> None:
        """Read the vectors at these places of the batch. Raises StoreUnavailable."""
        subjects = {i: self._subjects[i] for i in places if self._subjects[i] != NOBODY}
        if self._anchor is None or not subjects:
            return
        n_lanes = len(self._prefixes)
        wanted = [keys.vector(self._prefixes[one % n_lanes], self._anchor, one) for one in subjects.values()]
        for i, value in zip(subjects, self._store.read(wanted), strict=True):
            self._read[i] = decode_vector(value) if value else None

    def of(self, place: int) -> Vector | None:
        """Return a vector (d,), None where there is none. Raises StoreUnavailable."""
        if place not in self._read:
            self._read[place] = None
            self.read([place])
        return self._read[place]
