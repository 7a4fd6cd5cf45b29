"""Messages of several partitions in the order of their times, so that a catch-up folds them as they happened.

A broker gives what it has, partition by partition: after an outage, or in a replay, a
user's purchases of a week could come before the views of that week and make them
late. So a message is held until every partition that has more to come has been read
up to its time.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

MAX_HELD = 100_000
"""A partition this far ahead of the others (or two batches) is paused; what was fetched of it is thrown away then."""


class _Held:
    """The messages of one partition that are held back."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.times: list[int] = []
        self.values: list[bytes | None] = []
        self.sources: list[Any] = []
        self.newest = 0

    def drop(self, n: int) -> None:
        for column in (self.offsets, self.times, self.values, self.sources):
            del column[:n]


class Merged(NamedTuple):
    """Messages in order; `stream` indexes the merge's streams, `source` is the reader's own data of each."""

    stream: list[int]
    offset: list[int]
    value: list[bytes | None]
    source: list[Any]


class TimeMerge:
    """Holds messages of `streams` and gives them back by time; those of one stream keep their order."""

    def __init__(self, streams: tuple[str, ...]) -> None:
        self.streams = streams
        self._held = {stream: _Held() for stream in streams}

    def __len__(self) -> int:
        return sum(len(held.offsets) for held in self._held.values())

    def add(
        self, stream: str, offsets: list[int], times: list[int], values: list[bytes | None], sources: list[Any]
    ) -> None:
        """Hold messages of one stream that follow one another."""
        held = self._held[stream]
        held.offsets += offsets
        # A message behind a newer one cannot come before it.
        held.times += list(accumulate(times, max, initial=held.newest))[1:]
        held.newest = held.times[-1]
        held.values += values
        held.sources += sources

    def _take_of(self, index: int, n: int) -> Merged:
        held = self._held[self.streams[index]]
        merged = Merged([index] * n, held.offsets[:n], held.values[:n], held.sources[:n])
        held.drop(n)
        return merged

    def n_held(self, stream: str) -> int:
        """Return how many messages of a stream wait for those of other partitions."""
        return len(self._held[stream].offsets)

    def end(self, stream: str) -> int | None:
        """Return the offset behind the last message held, None when none is."""
        held = self._held[stream]
        return held.offsets[-1] + 1 if held.offsets else None

    def take(self, more_to_come: set[str], max_messages: int) -> Merged:
        """Take out what may go: nothing newer than the last message held of a stream that has more to come."""
        bound = min((self._held[s].newest if self._held[s].offsets else -1 for s in more_to_come), default=1 << 62)
        n_free = [bisect_right(held.times, bound) for held in self._held.values()]
        if n_free.count(0) == len(n_free) - 1:  # of one stream, whose messages are in order
            return self._take_of(next(index for index, n in enumerate(n_free) if n), min(max(n_free), max_messages))
        times = np.concatenate([held.times[:n] for held, n in zip(self._held.values(), n_free, strict=True)])
        order = np.argsort(times, kind="stable")[:max_messages]
        stream = np.repeat(np.arange(len(n_free)), n_free)[order]
        offsets: list[int] = []
        values: list[bytes | None] = []
        sources: list[Any] = []
        for held, n in zip(self._held.values(), n_free, strict=True):
            offsets += held.offsets[:n]
            values += held.values[:n]
            sources += held.sources[:n]
        chosen = order.tolist()
        merged = Merged(
            stream.tolist(), [offsets[i] for i in chosen], [values[i] for i in chosen], [sources[i] for i in chosen]
        )
        for index, held in enumerate(self._held.values()):
            held.drop(int((stream == index).sum()))
        return merged
