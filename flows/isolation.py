"""A message that cannot be folded, found by halving its batch; the others are folded as if it were not there."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flows.fold.changes import Changes, FoldStats
from flows.fold.lane import Lane
from flows.log.contract import LogUnavailable, RawBatch
from schemas.events import COLUMN_DTYPE, Decoded
from schemas.ids import NoIdKey
from schemas.registry import RegistryUnavailable
from state.rows.slot_map import CacheTooSmall
from state.store.contract import Fenced, Positions, StoreUnavailable

NO_MESSAGES_FAULT = (Fenced, StoreUnavailable, LogUnavailable, RegistryUnavailable, CacheTooSmall, NoIdKey)
"""What passes through the fold as it is."""


def fold_in_parts(
    lane: Lane,
    decoded: Decoded,
    raw: RawBatch,
    commit: Callable[[Lane, Changes], None],
    refuse: Callable[[int, Exception], None],
) -> FoldStats:
    """Fold a batch that failed as a whole: every culprit is refused, all else committed, the lane stands behind it.

    Call with all earlier commits done; whatever a failed fold left in the lane's memory is dropped. `refuse` gets the
    message before the commit that passes over it.
    """
    folding = _Folding(lane, decoded, raw, commit, refuse)
    lane.open()
    folding.fold(0, len(raw))
    return folding.stats


class _Folding:
    def __init__(
        self,
        lane: Lane,
        decoded: Decoded,
        raw: RawBatch,
        commit: Callable[[Lane, Changes], None],
        refuse: Callable[[int, Exception], None],
    ) -> None:
        self._lane, self._decoded, self._raw, self._commit, self._refuse = lane, decoded, raw, commit, refuse
        self.stats = FoldStats()

    def fold(self, first: int, end: int) -> None:
        """Fold and commit the messages from `first` to before `end`, but for culprits."""
        part, raw = part_of(self._decoded, first, end), replace(self._raw, after=after(self._raw, end))
        failure: Exception | None = None
        try:
            changes = self._lane.apply(part, raw)
        except NO_MESSAGES_FAULT:
            raise
        except Exception as error:
            failure = error
        if failure is not None:
            self._lane.open()
            if end - first > 1:
                self.fold(first, (first + end) // 2)
                self.fold((first + end) // 2, end)
                return
            self._refuse(first, failure)
            changes = self._lane.apply(Decoded(np.zeros(0, COLUMN_DTYPE)), raw)
        self._commit(self._lane, changes)
        self.stats = self.stats + changes.stats


def part_of(decoded: Decoded, first: int, end: int) -> Decoded:
    """Return what is decoded of the messages from `first` to before `end`."""
    rows = decoded.interactions
    low, high = np.searchsorted(rows["message"], [first, end])
    return replace(
        decoded, interactions=rows[low:high],
        products=[change for change in decoded.products if first <= change.message < end],
        erasures=[erasure for erasure in decoded.erasures if first <= erasure.message < end],
    )  # fmt: skip


def after(raw: RawBatch, end: int) -> Positions:
    """Return the positions of a batch's streams behind its first `end` messages."""
    if end == len(raw):
        return raw.after
    positions = dict(raw.before)
    for index in np.unique(raw.stream[:end]).tolist():
        here = raw.offset[:end][raw.stream[:end] == index]
        positions[raw.streams[index]] = int(here[-1]) + 1
    return positions
