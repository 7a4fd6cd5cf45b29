"""Answers requests that arrive while the loop is busy together: about 64 in a batch, about 256 from calls with many.

Equal requests of one batch are answered once. The queue is bounded. Above CHEAP_ABOVE waiting requests every second
call is answered at once from memory; from REFUSE_ABOVE on, calls are refused.

A request's failure is its own. A batch that fails is halved until each failing call stands
alone; all others are answered as they would be alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from serving.engine import clock
from serving.engine.calls import Call, Done, Found, parts_of
from serving.engine.impression_log import Impressions
from serving.engine.metrics import SHED
from serving.engine.recommender import Recommender
from serving.engine.request_batch import RequestBatch
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest
from state.store.contract import StoreUnavailable

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


class Shared(NamedTuple):
    """Requests that are answered once, and the calls that get the answers: several where their requests are equal."""

    requests: Sequence[RecommendRequest]
    calls: list[Call]

    def fail(self, error: Exception) -> None:
        """Fail each of the calls."""
        for call in self.calls:
            call.fail(error)


class InFlight(NamedTuple):
    """A batch whose rows are on their way, or the error that kept it from being sent."""

    shared: list[Shared]
    batch: RequestBatch | None
    error: Exception | None = None

    def answer(self) -> list[Answer]:
        """Return the answers, in the order of the requests. Raises the batch's error."""
        if self.batch is None:
            assert self.error is not None
            raise self.error
        return self.batch.answer()


class Overloaded(Exception):
    """Too many requests wait; try again in a second."""


class MicroBatcher:
    """Answers calls in batches. One event loop uses it."""

    def __init__(self, recommender: Recommender, impressions: Impressions | None = None) -> None:
        """`impressions`: where answers are noted that callers got."""
        self._recommender, self._impressions = recommender, impressions
        self._calls: deque[Call] = deque()
        self._n_waiting = 0
        self._next_from_memory = True
        self._scheduled = False

    def submit(self, requests: Sequence[RecommendRequest], key: bytes, done: Done) -> None:
        """Queue requests that came together; `done` gets their answers or the error. Raises Overloaded.

        Calls with the same `key` have equal requests; b"" is none.
        """
        call = Call(requests, key, done)
        if self._n_waiting >= CHEAP_ABOVE:
            if self._n_waiting >= REFUSE_ABOVE:
                SHED.labels("refused").inc(len(requests))
                raise Overloaded(f"{self._n_waiting} requests wait")
            from_memory, self._next_from_memory = self._next_from_memory, not self._next_from_memory
            if from_memory:  # half of them, so that the queue grows slower and some are still in full
                SHED.labels("from_memory").inc(len(requests))
                self._answer_from_memory(call)
                return
        self._n_waiting += len(requests)
        self._calls += parts_of(call, MAX_OF_CALLS)
        if not self._scheduled:
            self._schedule()

    async def recommend_all(self, requests: Sequence[RecommendRequest]) -> Sequence[Answer]:
        """Return the answers to requests that came together. Raises Overloaded, RequestFailed and StoreUnavailable."""
        reply: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.submit(requests, b"", lambda found: None if reply.done() else reply.set_result(found))
        found = await reply
        if isinstance(found, Exception):
            raise found
        return found

    async def recommend(self, request: RecommendRequest) -> Answer:
        """Return the answer to one request. Raises Overloaded, RequestFailed and StoreUnavailable."""
        return (await self.recommend_all([request]))[0]

    def _schedule(self) -> None:
        self._scheduled = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._flush, loop, 0, 0)

    def _flush(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        """Send the waiting requests on when QUIET_TURNS have brought no more, or there are enough."""
        n = self._n_waiting
        if n < MAX_BATCH and (n > seen or quiet < QUIET_TURNS):
            loop.call_soon(self._flush, loop, n, 0 if n > seen else quiet + 1)
            return
        self._call_when_ready(self._send(self._take()), self._finish)

    def _take(self) -> list[Shared]:
        """Take the next batch off the queue."""
        taken: list[Shared] = []
        of_key: dict[bytes, Shared] = {}
        left = MAX_BATCH if len(self._calls[0].requests) == 1 else MAX_OF_CALLS
        while self._calls and left > 0:
            call = self._calls.popleft()
            left -= len(call.requests)
            self._n_waiting -= len(call.requests)
            same = of_key.get(call.key) if call.key else None
            if same is not None:
                same.calls.append(call)
                continue
            shared = Shared(call.requests, [call])
            taken.append(shared)
            if call.key:
                of_key[call.key] = shared
        return taken

    def _send(self, shared: list[Shared]) -> InFlight:
        """Start the read of a batch's rows."""
        requests = [request for one in shared for request in one.requests]
        try:
            batch = self._recommender.batch(requests, clock.now_ms())
            batch.read()
        except Exception as error:
            return InFlight(shared, None, error)
        return InFlight(shared, batch)

    def _call_when_ready(self, flight: InFlight, then: Callable[[InFlight], None]) -> None:
        """Go on with a batch when its rows are here; until then the loop takes requests, and waits for nobody."""
        if flight.batch is None:
            asyncio.get_running_loop().call_soon(then, flight)
        else:
            flight.batch.when_ready(partial(then, flight))

    def _finish(self, flight: InFlight) -> None:
        # Where enough wait, Redis reads the rows of the next batch while this one is worked out.
        following = self._send(self._take()) if self._n_waiting >= MAX_BATCH else None
        answers = self._answers(flight)
        if following is not None:
            self._call_when_ready(following, self._finish)
        elif self._calls:
            self._schedule()
        else:
            self._scheduled = False
        self._hand_over(flight.shared, answers)

    def _answers(self, flight: InFlight) -> list[Answer]:
        """Return the answers to a batch; none where it fails: its calls get the failure, or its halves are tried."""
        try:
            return flight.answer()
        except StoreUnavailable as error:  # not a fault of what was asked
            for shared in flight.shared:
                for call in shared.calls:
                    call.give(error)
        except Exception as error:
            if len(flight.shared) > 1:
                loop, half = asyncio.get_running_loop(), len(flight.shared) // 2
                for part in (flight.shared[:half], flight.shared[half:]):
                    loop.call_soon(self._answer_part, part)
            else:
                flight.shared[0].fail(error)
        return []

    def _answer_part(self, shared: list[Shared]) -> None:
        """Answer a part of a batch that failed; between two parts the loop does what else there is."""
        self._call_when_ready(self._send(shared), self._finish_part)

    def _finish_part(self, flight: InFlight) -> None:
        self._hand_over(flight.shared, self._answers(flight))

    def _hand_over(self, batch: list[Shared], answers: list[Answer]) -> None:
        """Give each call its answers, and note those that callers got; nothing where there are none."""
        first = 0
        for requests, calls in batch if answers else ():
            mine = answers[first : first + len(requests)]
            first += len(requests)
            for call in calls:
                if call.give(mine) and self._impressions is not None:
                    for request, answer in zip(requests, mine, strict=True):
                        self._impressions.note(request, answer)

    def _answer_from_memory(self, call: Call) -> None:
        now_ms = clock.now_ms()
        try:
            found = [self._recommender.from_memory(request, now_ms) for request in call.requests]
        except Exception as error:
            call.fail(error)
        else:
            call.give(found)
