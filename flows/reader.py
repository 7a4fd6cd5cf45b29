"""Reads a log for a flow: how many messages at a time, and one batch ahead while many wait."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from flows.log import Log, RawBatch
from state.store import Positions

FIRST_EVENTS = 60_000
MOST_BYTES = 64 << 20


class BatchSize:
    """How many messages a batch may have, judged by how long and how heavy those before were.

    In a large batch a row that many events change is written once, so batches grow
    while they are full; but a flow answers to nobody (leases, signals) while it folds one.
    """

    def __init__(self, most_events: int, longest_s: float) -> None:
        self._most, self._longest_s = most_events, longest_s
        self.limit = min(FIRST_EVENTS, most_events)

    def learn(self, raw: RawBatch, seconds: float) -> None:
        """Take notice of a batch that was folded in `seconds`."""
        n = len(raw)
        if not n:
            return
        by_bytes = int(MOST_BYTES / max(len(raw.payload) / n, 1))
        if raw.full:
            by_time = int(self._longest_s / max(seconds / n, 1e-9))
            self.limit = min(2 * self.limit, by_time, self._most)
        self.limit = max(min(self.limit, by_bytes), 1)


class BatchReader:
    """Gives the batches of a log in turn, decoded.

    While they come full, the next one is read and decoded in a thread beside the fold of the one before.
    """

    def __init__(self, log: Log, decode: Callable[[RawBatch], RawBatch], size: BatchSize) -> None:
        self._log, self._decode, self.size = log, decode, size
        self._positions: Positions = {}
        self._ahead: Future[RawBatch | None] | None = None
        self._pool = ThreadPoolExecutor(1, "read")

    def between_reads(self) -> Log:
        """Return the log, once nothing is being read from it: it is made for one thread at a time."""
        if self._ahead is not None:
            wait([self._ahead])
        return self._log

    def begin(self, positions: Positions) -> None:
        """Read on from these positions, whatever was read ahead."""
        self.between_reads()
        self._positions, self._ahead = dict(positions), None

    def read(self, wait_s: float) -> RawBatch | None:
        """Return the next batch, None when nothing arrived in time. Raises what the log and the registry raise."""
        ahead, self._ahead = self._ahead, None
        raw = self._read(wait_s) if ahead is None else ahead.result()
        if raw is not None and raw.full:
            self._ahead = self._pool.submit(self._read, 0.0)
        return raw

    def _read(self, wait_s: float) -> RawBatch | None:
        limit = self.size.limit
        raw = self._log.read(self._positions, limit, wait_s)
        if raw is None:
            return None
        self._positions = raw.after
        return self._decode(replace(raw, full=len(raw) == limit))

    def close(self) -> None:
        self._pool.shutdown()
        self._log.close()
