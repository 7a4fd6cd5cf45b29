"""The window of event ids already folded, exact and bounded.

Ids are numbered in the order the lane accepted them. The window spans two
generations of `window // 2` ids: an id is known while its generation is the
current or the previous one, so the last `window // 2` to `window` distinct ids
are remembered. The sequence rests in rows of SEGMENT ids (a ring of
`window // SEGMENT` rows), so the window survives restarts.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

SEGMENT = 1024
Ids = npt.NDArray[np.uint64]


@njit_no_refcount()
def _find_or_add(table: Ids, event_id: np.uint64, put: bool) -> bool:
    mask = np.uint64(len(table) - 1)
    at = event_id & mask
    while table[at] != 0:
        if table[at] == event_id:
            return True
        at = (at + np.uint64(1)) & mask
    if put:
        table[at] = event_id
    return False


@njit_no_refcount()
def _add_all(table: Ids, ids: Ids) -> None:
    for i in range(len(ids)):
        _find_or_add(table, ids[i], True)


@njit_no_refcount()
def _accept(
    tables: Ids,
    ring: Ids,
    half: int,
    count: int,
    messages: npt.NDArray[np.int32],
    ids: Ids,
    fresh: npt.NDArray[np.bool_],
) -> int:
    previous = np.int32(-1)
    decision = False
    for i in range(len(ids)):
        if messages[i] != previous:  # the lines of one order share its id and its fate
            previous = messages[i]
            current = (count // half) & 1
            known = _find_or_add(tables[1 - current], ids[i], False) or _find_or_add(tables[current], ids[i], False)
            decision = not known
            if decision:
                _find_or_add(tables[current], ids[i], True)
                ring[count % len(ring)] = ids[i]
                count += 1
                if count % half == 0:
                    tables[1 - current, :] = 0
        fresh[i] = decision
    return count


class DedupeWindow:
    """Accepts each event id once per window."""

    def __init__(self, window: int) -> None:
        if window < 2 * SEGMENT or window % (2 * SEGMENT):
            raise ValueError(f"dedupe window {window} must be a multiple of {2 * SEGMENT}")
        self._half = window // 2
        size = 1 << (window - 1).bit_length()  # half full at most
        self._tables = np.zeros((2, size), np.uint64)
        self._ring = np.zeros(window, np.uint64)
        self.count = 0

    def accept(self, messages: npt.NDArray[np.int32], ids: Ids) -> npt.NDArray[np.bool_]:
        """Remember the ids and return which rows belong to an event not seen before.

        `messages`: int32 (n,), rows of one message are adjacent and share their id.
        """
        fresh = np.empty(len(ids), np.bool_)
        self.count = _accept(self._tables, self._ring, self._half, self.count, messages, ids, fresh)
        return fresh

    def segments_since(self, count: int) -> dict[int, bytes]:
        """Return the rows of the segments that changed since the window held `count` ids, by segment number."""
        rows = {}
        for seq in range(count // SEGMENT * SEGMENT, self.count, SEGMENT):
            at = seq % len(self._ring)
            used = min(SEGMENT, self.count - seq)
            rows[at // SEGMENT] = np.concatenate(([np.uint64(seq)], self._ring[at : at + used])).tobytes()
        return rows

    def segments_of(self, count: int) -> list[int]:
        """Return the segment numbers that hold what the window remembers at `count` ids."""
        first = max(0, count // self._half - 1) * self._half
        return [seq % len(self._ring) // SEGMENT for seq in range(first, count, SEGMENT)]

    def restore(self, count: int, rows: Sequence[bytes | None]) -> None:
        """Become the window at `count` ids from the rows of `segments_of(count)`."""
        self._tables[:] = 0
        first = max(0, count // self._half - 1) * self._half
        for seq, row in zip(range(first, count, SEGMENT), rows, strict=True):
            values = np.frombuffer(row or b"", np.uint64)
            if len(values) == 0 or values[0] != seq:
                raise ValueError(f"dedupe segment for id {seq} is missing; rebuild the lane by a replay")
            ids = values[1 : 1 + min(SEGMENT, count - seq)]
            at = seq % len(self._ring)
            self._ring[at : at + len(ids)] = ids
            table = self._tables[(seq // self._half) & 1]
            _add_all(table, ids)
        self.count = count
