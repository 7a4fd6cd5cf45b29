"""Chooses how many messages a flow reads at a time."""

from dataclasses import replace

from flows.log.contract import MOST_BYTES, Log, RawBatch
from state.store.contract import Positions

FIRST_EVENTS = 60_000


class BatchSizer:
    """Chooses the size of the next batch by the time and the bytes that earlier ones took.

    In a large batch a row that many events change is written once, so batches grow
    while they are full; but a flow answers to nobody (leases, signals) while it folds one.
    """

    def __init__(self, most_events: int, longest_s: float) -> None:
        self._most, self._longest_s = most_events, longest_s
        self.limit = min(FIRST_EVENTS, most_events)

    def read(self, log: Log, positions: Positions, wait_s: float) -> RawBatch | None:
        """Return the next batch of the log, marked `full` when more may wait; None when nothing arrived in time."""
        limit = self.limit
        raw = log.read(positions, limit, wait_s)
        return None if raw is None else replace(raw, full=len(raw) == limit)

    def observe(self, raw: RawBatch, seconds: float) -> None:
        """Record that a batch was folded in `seconds`."""
        n = len(raw)
        if not n:
            return
        by_bytes = int(MOST_BYTES / max(len(raw.payload) / n, 1))
        if raw.full:
            by_time = int(self._longest_s / max(seconds / n, 1e-9))
            self.limit = min(2 * self.limit, by_time, self._most)
        self.limit = max(min(self.limit, by_bytes), 1)
