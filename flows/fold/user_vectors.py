"""Users' vectors: written with their rows, or owed and written later.

A vector is a function of its user's row and an anchor. A lane keeps one for the live anchor and, while another one is
refolded, one for that. While it catches up, or while the live anchor is not on this machine yet, it writes rows alone
and owes the vectors (`flows.fold.pending_vectors`).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from flows.fold.foldin import vectors_for
from flows.fold.pending_vectors import CHUNK, PendingVectors
from flows.fold.user_table import UserTable
from schemas.compiled.distinct import distinct
from state.anchor import Anchor
from state.rows import keys
from state.rows.vector_rows import pack_vectors
from state.store.contract import Store
from state.store.row_block import RowBlock, RowSet

Slots = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Rows = dict[bytes, bytes | None]


class UserVectors:
    """The vectors of a lane's users, and which of them are owed."""

    def __init__(self, store: Store, lane_prefix: bytes, users: UserTable) -> None:
        self._store, self._prefix, self._users = store, lane_prefix, users
        self._anchors: tuple[Anchor, ...] = ()
        self._versions: frozenset[str] = frozenset()
        self._live_is_missing = False
        self._owed = PendingVectors()
        self._writing: Iterator[tuple[RowSet, bool]] | None = None
        self._pool = ThreadPoolExecutor(1, "fold-in")

    def open(self, mark: bytes | None) -> None:
        """Owe what was owed when `mark` was committed: everybody's vector, or nobody's."""
        self._owed, self._writing = PendingVectors(everybody=mark is not None), None

    def use(self, anchors: tuple[Anchor, ...], others: Iterable[str], live_is_missing: bool) -> None:
        """Keep vectors for these anchors; of `others` only see to it that those of erased users go."""
        if live_is_missing and not self._live_is_missing and self._owes:  # by no anchor that is here
            self._owed, self._writing = PendingVectors(everybody=True), None
        self._anchors, self._live_is_missing = anchors, live_is_missing
        self._versions = frozenset((*(anchor.version for anchor in anchors), *others))

    @property
    def can_write(self) -> bool:
        """Whether vectors are owed that `write_pending` can write."""
        return self._owes and not self._live_is_missing

    @property
    def _owes(self) -> bool:
        return bool(self._owed) or self._writing is not None

    def leaves(self, behind: bool) -> bool:
        """Return whether a batch leaves its users' vectors for later; `behind`: many more batches wait."""
        # While an anchor is refolded every user who acts gets vectors for both, or some would miss the switch.
        return behind and len(self._anchors) == 1 and not self._live_is_missing

    def begin(self, users: Slots, later: bool) -> Callable[[], list[RowBlock]]:
        """Begin to fold users in, beside the caller; what is returned gives their rows, none if they come `later`."""
        return self._start(users, () if later else self._anchors)

    def owe(self, users: Slots, later: bool, rows: Rows) -> None:
        """Owe users the vectors that their batch did not write, and mark that in its rows."""
        if (later or self._live_is_missing) and len(users):
            self._owed.add(self._users.ids_of(users))
            rows[keys.owes_vectors(self._prefix)] = b"1"

    def delete(self, user: int, written: bool, rows: Rows) -> None:
        """Delete an erased user's vectors, but for those `written` anew in the same batch."""
        anew = {anchor.version for anchor in self._anchors} if written else set[str]()
        for version in self._versions - anew:
            rows[keys.vector(self._prefix, version, user)] = None

    def refold(self, anchor: Anchor) -> Iterator[RowSet]:
        """Yield every user's vector for an anchor, in chunks."""
        for users in self._everybody():
            yield self._vectors_of(users, (anchor,))

    def write_pending(self) -> tuple[RowSet, bool]:
        """Return some of the vectors owed, and whether each row is true by itself; at last the mark's removal."""
        self._writing = self._writing or self._write()
        return next(self._writing)

    def _write(self) -> Iterator[tuple[RowSet, bool]]:
        while self._owed:
            everybody, owed = self._owed.take()
            for users in owed:
                yield self._vectors_of(users, self._anchors), True
            if everybody:
                for users in self._everybody():
                    yield self._vectors_of(users, self._anchors), True
            # Batches folded meanwhile may owe again: another turn, and the mark stays.
        self._writing = None
        yield RowSet({keys.owes_vectors(self._prefix): None}), False

    def _everybody(self) -> Iterator[Ids]:
        waiting: list[int] = []
        for found in self._store.scan(keys.user_prefix(self._prefix)):
            waiting += map(keys.hash_of, found)
            if len(waiting) >= CHUNK:
                yield distinct(np.array(waiting, np.uint64))
                waiting = []
        yield distinct(np.array(waiting, np.uint64))

    def _vectors_of(self, users: Ids, anchors: tuple[Anchor, ...]) -> RowSet:
        self._users.begin_round()
        slots = self._users.load(users)
        slots = slots[self._users.rows["n"][slots] > 0]  # without those who were erased meanwhile
        rows = RowSet()
        rows.blocks += self._start(slots, anchors)()
        return rows

    def _start(self, slots: Slots, anchors: tuple[Anchor, ...]) -> Callable[[], list[RowBlock]]:
        """Begin to fold the users in, half of them in a thread; what is returned does the rest and gives the rows."""
        half = len(slots) // 2
        beside = [self._pool.submit(self._block, slots[:half], anchor) for anchor in anchors]
        return lambda: [
            *(self._block(slots[half:], anchor) for anchor in anchors), *(future.result() for future in beside)
        ]  # fmt: skip

    def _block(self, slots: Slots, anchor: Anchor) -> RowBlock:
        prefix = keys.vector_prefix(self._prefix, anchor.version)
        return RowBlock(prefix, self._users.ids_of(slots), *pack_vectors(vectors_for(self._users.rows, slots, anchor)))
