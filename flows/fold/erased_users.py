"""Users who were erased, read before the log is folded again, so that a replay skips what they did.

A flow reads an erasure after the events it is about, and takes back what the user's row still holds of them
(`flows.fold.erasure`). A replay reads all erasures first, and never folds those events.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.log.contract import topic_of
from schemas.events import Columns
from state.store.contract import Positions


class Erased(NamedTuple):
    """Who was erased and when: id hashes, ascending, and of each one's last erasure the time in ms or the place."""

    users: npt.NDArray[np.uint64]
    at: npt.NDArray[np.int64]

    @classmethod
    def of(cls, last: Mapping[int, int]) -> "Erased":
        """Return the table of these users' last erasures, given by id hash."""
        users = np.array(sorted(last), np.uint64)
        return cls(users, np.array([last[user] for user in users.tolist()], np.int64))

    def covers(self, users: npt.NDArray[np.uint64], at: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which events came before their user was erased, given their users and times or places."""
        if not len(self.users):
            return np.zeros(len(users), np.bool_)
        place = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        found: npt.NDArray[np.bool_] = (self.users[place] == users) & (at <= self.at[place])
        return found

    def skip(self, events: Columns) -> Columns:
        """Return the events without what these users did before they were erased."""
        gone = self.covers(events["user"], events["ts_ms"])
        return events[~gone] if gone.any() else events


EMPTY = Erased.of({})


def erasures_of(positions: Positions) -> Positions:
    """Return the positions of streams of erasures.

    >>> erasures_of({"erasures:0": 3, "ratings:0": 9})
    {'erasures:0': 3}
    """
    return {stream: at for stream, at in positions.items() if topic_of(stream) == "erasures"}
