"""The sessions of a batch side by side, as the scorer reads them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from state.rows.session import SESSION_EVENTS

Hashes = npt.NDArray[np.uint64]


class Sessions(NamedTuple):
    """Items of sessions, oldest first."""

    item: Hashes  # (B, SESSION_EVENTS)
    n: npt.NDArray[np.int64]  # (B,) how many of them count

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Which entries of `item` count."""
        there: npt.NDArray[np.bool_] = np.arange(SESSION_EVENTS) < self.n[:, None]
        return there

    def items(self) -> Hashes:
        """Return the items of all sessions, one session behind the other."""
        items = np.empty(int(self.n.sum()), np.uint64)
        _put_behind_each_other(self, items)
        return items


@njit_no_refcount()
def _put_behind_each_other(sessions: Sessions, out: Hashes) -> None:
    at = 0
    for b in range(len(sessions.n)):
        for k in range(sessions.n[b]):
            out[at] = sessions.item[b, k]
            at += 1


def padded_sessions(sessions: Sequence[Hashes]) -> Sessions:
    """Return the last SESSION_EVENTS items of each session, zeros behind them."""
    latest = [session[-SESSION_EVENTS:] for session in sessions]
    padded = Sessions(np.zeros((len(latest), SESSION_EVENTS), np.uint64), np.array([len(one) for one in latest], int))
    if latest:
        padded.item[padded.counts] = np.concatenate(latest)
    return padded
