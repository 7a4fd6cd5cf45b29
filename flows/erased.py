"""Users who were erased, known before the log is folded again: what they did before is passed over.

A flow meets an erasure behind the events it is about, and takes back what the user's row still tells of them
(`flows.forgetting`). A replay can know better: it reads the erasures first, and never folds those events.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.log import Log
from schemas.decode import Limits, decode
from schemas.events import Columns
from schemas.ids import hash_ids
from schemas.registry import SchemaRegistry
from state.store import Positions

CHUNK = 50_000
SILENCE_S = 5.0


class Erased(NamedTuple):
    """Who was erased and when: id hashes, ascending, and the time of each one's last erasure in ms."""

    users: npt.NDArray[np.uint64]
    at_ms: npt.NDArray[np.int64]

    def pass_over(self, events: Columns) -> Columns:
        """Return the events without what these users did before they were erased."""
        if not len(self.users) or not len(events):
            return events
        place = np.minimum(np.searchsorted(self.users, events["user"]), len(self.users) - 1)
        gone = (self.users[place] == events["user"]) & (events["ts_ms"] <= self.at_ms[place])
        return events[~gone] if gone.any() else events


NOBODY = Erased(np.zeros(0, np.uint64), np.zeros(0, np.int64))


def erasures_of(positions: Positions) -> Positions:
    """Return the positions of streams of erasures.

    >>> erasures_of({"erasures:0": 3, "ratings:0": 9})
    {'erasures:0': 3}
    """
    return {stream: at for stream, at in positions.items() if stream.rpartition(":")[0] == "erasures"}


def read_erased(log: Log, registry: SchemaRegistry, until: Positions, now_ms: int) -> Erased:
    """Return who was erased by the log's erasures before `until`; what retention removed of them is not known.

    Raises LogUnavailable, RegistryUnavailable.
    """
    users: list[str] = []
    times: list[int] = []
    until = erasures_of(until)
    # Of all else only what comes while this reads.
    positions = {**log.end(), **erasures_of(log.start())}
    while any(positions.get(stream, 0) < end for stream, end in until.items()):
        raw = log.read(positions, CHUNK, SILENCE_S)
        if raw is None:
            log.end()  # raises where it is out of reach; else what is left are marks of transactions
            break
        for erasure in decode(raw.until(until), registry, now_ms, Limits()).erasures:
            users.append(erasure.user)
            times.append(erasure.ts_ms)
        positions = raw.after
    ids, place = np.unique(hash_ids(users), return_inverse=True)
    at_ms = np.zeros(len(ids), np.int64)
    np.maximum.at(at_ms, place, np.array(times, np.int64))
    return Erased(ids, at_ms)
