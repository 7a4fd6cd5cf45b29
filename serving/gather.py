"""Requests that arrive while the loop is busy are answered together, at most 64 at a time, of calls with many 256.

Equal requests of one batch are answered once. The queue is bounded: past the first
mark requests are answered at once from memory, past the second they are refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter

from serving.impressions import Impressions
from serving.requests import Answer, RecommendRequest
from serving.service import Recommender

MAX_BATCH = 64
MAX_OF_CALLS = 256
"""Where the first belongs to a call with many requests, which is answered when all are: what a batch costs whatever is
in it is then paid less often."""
QUIET_TURNS = 16
"""Turns of the loop without a new request after which a batch is full enough: no timer, and no wait of an idle loop.

A turn of an idle loop takes a few microseconds. (Fewer turns while requests come one by one was tried: then they never
begin to come together.)
"""
CHEAP_ABOVE, REFUSE_ABOVE = 1_000, 2_000
SHED = Counter("headrace_shed", "Requests not answered in full because too many waited", ["how"])

log = structlog.get_logger()

Done = Callable[[Answer | Exception], None]
Entry = tuple[RecommendRequest, bytes, Done]


class Overloaded(Exception):
    """Too many requests wait; try again in a second."""


class _Call:
    """A call with many requests, answered when all are."""

    def __init__(self, n: int) -> None:
        self._found: list[Answer | Exception | None] = [None] * n
        self._left = n
        self.all: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def put(self, place: int, found: Answer | Exception) -> None:
        self._found[place] = found
        self._left -= 1
        if not (self._left or self.all.done()):
            self.all.set_result(self._found)


class Gather:
    """Hands batches of requests to the recommender. One event loop uses it."""

    def __init__(self, recommender: Recommender, impressions: Impressions | None = None) -> None:
        self._recommender, self._impressions = recommender, impressions
        self._waiting: deque[Entry] = deque()
        self._scheduled = False

    def ask(self, request: RecommendRequest, key: bytes, done: Done) -> None:
        """Have `done` called with the answer; requests with the same `key` are equal, b"" is none. Raises Overloaded.

        `done` gets the exception instead where there is no answer.
        """
        if len(self._waiting) >= CHEAP_ABOVE:
            if len(self._waiting) >= REFUSE_ABOVE:
                SHED.labels("refused").inc()
                raise Overloaded(f"{len(self._waiting)} requests wait")
            if len(self._waiting) % 2:  # half of them, so that the queue grows slower and some are still in full
                SHED.labels("from_memory").inc()
                done(self._recommender.from_memory(request, time.time_ns() // 1_000_000))
                return
        self._waiting.append((request, key, done))
        if not self._scheduled:
            self._schedule()

    async def recommend_all(self, requests: Sequence[RecommendRequest]) -> list[Answer]:
        """Answer requests that came together. Raises Overloaded."""
        call = _Call(len(requests))
        for place, request in enumerate(requests):
            self.ask(request, b"", partial(call.put, place))
        answers = await call.all
        for found in answers:
            if isinstance(found, Exception):
                raise found
        return answers

    async def recommend(self, request: RecommendRequest) -> Answer:
        """Answer one request. Raises Overloaded."""
        return (await self.recommend_all([request]))[0]

    def _schedule(self) -> None:
        self._scheduled = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._flush, loop, 0, 0)

    def _flush(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        n = len(self._waiting)
        if n < MAX_BATCH and (n > seen or quiet < QUIET_TURNS):
            loop.call_soon(self._flush, loop, n, 0 if n > seen else quiet + 1)
            return
        most = MAX_BATCH if self._waiting[0][1] else MAX_OF_CALLS
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]
        place_of: dict[bytes, int] = {}
        requests: list[RecommendRequest] = []
        places = []
        for n, (request, key, _) in enumerate(batch):
            place = place_of.setdefault(key or n.to_bytes(2, "big"), len(requests))
            if place == len(requests):
                requests.append(request)
            places.append(place)
        try:
            begun = self._recommender.begin(requests, time.time_ns() // 1_000_000)
        except Exception as error:
            self._end(batch, places, [error] * len(batch))
        else:
            # While Redis reads the users' rows the loop takes requests that have come since from their connections.
            loop.call_soon(self._finish, batch, places, begun)

    def _finish(self, batch: list[Entry], places: list[int], begun: Callable[[], list[Answer]]) -> None:
        found: Sequence[Answer | Exception]
        try:
            found = begun()
        except Exception as error:
            found = [error] * len(batch)
        self._end(batch, places, found)

    def _end(self, batch: list[Entry], places: list[int], found: Sequence[Answer | Exception]) -> None:
        """Go on with those who wait, and hand over what was found."""
        self._scheduled = False
        if self._waiting:
            self._schedule()
        for (request, _, done), place in zip(batch, places, strict=True):
            self._hand_over(request, found[place], done)

    def _hand_over(self, request: RecommendRequest, answer: Answer | Exception, done: Done) -> None:
        try:
            done(answer)
        except Exception as error:  # of one request; the others of its batch have answers
            log.error("an answer was not sent", exc_info=error)
        if self._impressions is not None and isinstance(answer, Answer):
            self._impressions.note(request, answer)
