"""Requests that arrive while the loop is busy are answered together, some 64 at a time, of calls with many some 256.

Equal requests of one batch are answered once. The queue is bounded: past the first
mark requests are answered at once from memory, past the second they are refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

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

Done = Callable[[Sequence[Answer] | Exception], None]
Call = tuple[Sequence[RecommendRequest], bytes, Done]
Begun = tuple[list[tuple[int, Call]], Callable[[], list[Answer]]]
"""A batch whose rows are on their way: its calls with where in it their requests begin, and what ends it."""


class Overloaded(Exception):
    """Too many requests wait; try again in a second."""


def _fail(error: Exception) -> list[Answer]:
    raise error


class _Pieces:
    """Puts the answers to the pieces of a call together, which are answered one after the other."""

    def __init__(self, n: int, done: Done) -> None:
        self._left, self._done, self._answers = n, done, list[Answer]()

    def put(self, found: Sequence[Answer] | Exception) -> None:
        if self._left == 0:  # a piece before it has failed
            return
        if isinstance(found, Exception):
            self._left = 0
            self._done(found)
            return
        self._left -= len(found)
        self._answers += found
        if self._left == 0:
            self._done(self._answers)


class Gather:
    """Hands batches of requests to the recommender. One event loop uses it."""

    def __init__(self, recommender: Recommender, impressions: Impressions | None = None) -> None:
        self._recommender, self._impressions = recommender, impressions
        self._calls: deque[Call] = deque()
        self._n_waiting = 0
        self._next_from_memory = True
        self._scheduled = False

    def ask(self, requests: Sequence[RecommendRequest], key: bytes, done: Done) -> None:
        """Have `done` called with the answers to requests that came together, or why there are none. Raises Overloaded.

        Calls with the same `key` have equal requests; b"" is none.
        """
        if self._n_waiting >= CHEAP_ABOVE:
            if self._n_waiting >= REFUSE_ABOVE:
                SHED.labels("refused").inc(len(requests))
                raise Overloaded(f"{self._n_waiting} requests wait")
            from_memory, self._next_from_memory = self._next_from_memory, not self._next_from_memory
            if from_memory:  # half of them, so that the queue grows slower and some are still in full
                SHED.labels("from_memory").inc(len(requests))
                now_ms = time.time_ns() // 1_000_000
                done([self._recommender.from_memory(request, now_ms) for request in requests])
                return
        self._n_waiting += len(requests)
        if len(requests) <= MAX_OF_CALLS:
            self._calls.append((requests, key, done))
        else:
            pieces = _Pieces(len(requests), done)
            for first in range(0, len(requests), MAX_OF_CALLS):
                self._calls.append((requests[first : first + MAX_OF_CALLS], b"", pieces.put))
        if not self._scheduled:
            self._schedule()

    async def recommend_all(self, requests: Sequence[RecommendRequest]) -> Sequence[Answer]:
        """Answer requests that came together. Raises Overloaded."""
        reply: asyncio.Future[Sequence[Answer] | Exception] = asyncio.get_running_loop().create_future()
        self.ask(requests, b"", lambda found: None if reply.done() else reply.set_result(found))
        found = await reply
        if isinstance(found, Exception):
            raise found
        return found

    async def recommend(self, request: RecommendRequest) -> Answer:
        """Answer one request. Raises Overloaded."""
        return (await self.recommend_all([request]))[0]

    def _schedule(self) -> None:
        self._scheduled = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._flush, loop, 0, 0)

    def _flush(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        n = self._n_waiting
        if n < MAX_BATCH and (n > seen or quiet < QUIET_TURNS):
            loop.call_soon(self._flush, loop, n, 0 if n > seen else quiet + 1)
            return
        loop.call_soon(self._finish, *self._begin())  # while Redis reads, the loop takes requests that have come since

    def _begin(self) -> Begun:
        requests, calls = self._take()
        try:
            return calls, self._recommender.begin(requests, time.time_ns() // 1_000_000)
        except Exception as error:
            return calls, partial(_fail, error)

    def _take(self) -> tuple[list[RecommendRequest], list[tuple[int, Call]]]:
        """Return the requests of the next batch, equal ones once, and its calls with where theirs begin."""
        requests: list[RecommendRequest] = []
        calls: list[tuple[int, Call]] = []
        first_of: dict[bytes, int] = {}
        left = MAX_BATCH if len(self._calls[0][0]) == 1 else MAX_OF_CALLS
        while self._calls and left > 0:
            call = self._calls.popleft()
            asked, key, _ = call
            at = len(requests)
            first = first_of.setdefault(key, at) if key else at
            if first == at:
                requests += asked
            calls.append((first, call))
            left -= len(asked)
            self._n_waiting -= len(asked)
        return requests, calls

    def _finish(self, calls: list[tuple[int, Call]], begun: Callable[[], list[Answer]]) -> None:
        # Where enough wait, Redis reads the rows of the next batch while this one is worked out.
        following = self._begin() if self._n_waiting >= MAX_BATCH else None
        found: list[Answer] | Exception
        try:
            found = begun()
        except Exception as error:
            found = error
        if following is not None:
            asyncio.get_running_loop().call_soon(self._finish, *following)
        elif self._calls:
            self._schedule()
        else:
            self._scheduled = False
        for first, call in calls:
            n = len(call[0])
            self._hand_over(call, found if isinstance(found, Exception) else found[first : first + n])

    def _hand_over(self, call: Call, found: Sequence[Answer] | Exception) -> None:
        requests, _, done = call
        try:
            done(found)
        except Exception as error:  # of one call; the others of its batch have answers
            log.error("an answer was not sent", exc_info=error)
        if self._impressions is not None and not isinstance(found, Exception):
            for request, answer in zip(requests, found, strict=True):
                self._impressions.note(request, answer)
