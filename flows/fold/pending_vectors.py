"""Users whose vectors are older than their rows: a lane that is catching up writes vectors later.

A vector is a pure function of its user's row. Of a user who acts in ten batches of
a backlog only the last vector is ever of use, so a lane that is behind writes rows
alone and remembers the users here. A mark in the store, set in the same commits,
outlives a crash; what the mark says is then "perhaps everybody".
"""

import numpy as np
import numpy.typing as npt

from schemas.compiled.distinct import distinct

Ids = npt.NDArray[np.uint64]

MOST = 4_000_000
"""Users remembered one by one (64 MiB at most); of more it is only known that somebody is owed."""
CHUNK = 4000
"""Users in one commit: events that arrive meanwhile wait for some 20 ms."""


class PendingVectors:
    """A bounded set of users, or everybody."""

    def __init__(self, everybody: bool = False) -> None:
        self._everybody, self._added, self._n_added = everybody, list[Ids](), 0

    def __bool__(self) -> bool:
        return self._everybody or bool(self._added)

    def add(self, users: Ids) -> None:
        """Owe these users (id hashes) a vector each."""
        if self._everybody:
            return
        self._added.append(users)
        self._n_added += len(users)
        if self._n_added > 2 * MOST:
            users = distinct(np.concatenate(self._added))
            self._added, self._n_added = [users], len(users)
            if self._n_added > MOST:
                self._everybody, self._added = True, []

    def take(self) -> tuple[bool, list[Ids]]:
        """Return (everybody, distinct users in chunks) and owe nothing any more."""
        users = distinct(np.concatenate(self._added)) if self._added else np.zeros(0, np.uint64)
        taken = self._everybody, [users[i : i + CHUNK] for i in range(0, len(users), CHUNK)]
        self._everybody, self._added, self._n_added = False, [], 0
        return taken
