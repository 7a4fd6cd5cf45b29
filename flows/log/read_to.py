"""Reads everything between two positions of the log; it raises an error rather than end early."""

import time
from collections.abc import Iterator

from flows.log.batch_sizer import BatchSizer
from flows.log.contract import Log, LogUnavailable, RawBatch
from state.store.contract import Positions

WAIT_S = 1.0
MOST_MESSAGES = 50_000


def read_to(log: Log, start: Positions, end: Positions, patience_s: float) -> Iterator[RawBatch]:
    """Yield all messages from `start` to before `end`, a bounded number of bytes at a time.

    Raises LogUnavailable when reading came no closer to `end` for `patience_s`, and PositionLost.
    """
    positions, size = dict(start), BatchSizer(MOST_MESSAGES, patience_s)
    left, came_at = _left(positions, end), time.monotonic()
    while left:
        raw = size.read(log, positions, min(WAIT_S, patience_s))
        if raw is not None:
            positions = raw.after
            yield raw.until(end)
            size.observe(raw, 0.0)
        before, left = left, _left(positions, end)
        if left < before:
            came_at = time.monotonic()
        elif time.monotonic() - came_at > patience_s:
            behind = [stream for stream, last in end.items() if positions.get(stream, 0) < last]
            raise LogUnavailable(
                f"{left:,} messages before the end of the log do not come ({behind[0]} stands at "
                f"{positions.get(behind[0], 0)} of {end[behind[0]]}) for {patience_s:g} s; nothing was made of a part"
            )


def _left(positions: Positions, end: Positions) -> int:
    return sum(max(last - positions.get(stream, 0), 0) for stream, last in end.items())
