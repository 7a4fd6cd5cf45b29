"""Requests that arrive while the loop is busy are answered together, some 64 at a time, of calls with many some 256.

Equal requests of one batch are answered once. The queue is bounded: past the first
mark requests are answered at once from memory, past the second they are refused.

A request's failure is its own. A batch that cannot be worked out is halved until each
call that fails stands alone; all others are answered as they would be alone.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from serving.engine import clock
from serving.engine.impression_log import Impressions
from serving.engine.recommender import Recommender
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
SHED = Counter("headrace_shed", "Requests not answered in full because too many waited", ["how"])
FAILURES = Counter("headrace_request_failures", "Calls that could not be answered because of a fault of the server's")

log = structlog.get_logger()

Done = Callable[[Sequence[Answer] | Exception], None]
Call = tuple[Sequence[RecommendRequest], bytes, Done]


class Together(NamedTuple):
    """Requests that are answered once, and the calls that ask them: several where they are equal."""

    requests: Sequence[RecommendRequest]
    calls: list[Call]


InFlight = tuple[list[Together], Callable[[], list[Answer]]]
"""A batch whose rows are on their way, and what ends it."""


class Overloaded(Exception):
    """Too many requests wait; try again in a second."""


class RequestFailed(Exception):
    """The server could not answer this one call: a fault of its own, logged with this request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error; the server's log says more of request {request_id}")
        self.request_id = request_id


def failed(error: Exception, requests: Sequence[RecommendRequest], request_id: str = "") -> RequestFailed:
    """Count and log why a call has no answer; return what its caller is told, by an id of its own or a new one."""
    request_id = request_id or uuid.uuid4().hex
    FAILURES.inc()
    log.error("a request was not answered", request_id=request_id, requests=len(requests), exc_info=error)
    return RequestFailed(request_id)


def _fail(error: Exception) -> list[Answer]:
    raise error


class PartialResult:
    """Puts the answers to the pieces of a call together, which are answered one after the other."""

    def __init__(self, n: int, done: Done) -> None:
        self._left, self._done, self._answers = n, done, list[Answer]()
        self._failed = False

    def put(self, found: Sequence[Answer] | Exception) -> None:
        if self._failed:
            return
        if isinstance(found, Exception):
            self._failed = True
            self._done(found)
            return
        self._left -= len(found)
        self._answers += found
        if self._left == 0:
            self._done(self._answers)


class MicroBatcher:
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
                self._answer_from_memory((requests, key, done))
                return
        self._n_waiting += len(requests)
        if len(requests) <= MAX_OF_CALLS:
            self._calls.append((requests, key, done))
        else:
            pieces = PartialResult(len(requests), done)
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
        self._go_on(*self._begin())

    def _go_on(self, batch: list[Together], begun: Callable[[], list[Answer]]) -> None:
        """Finish a batch when its rows are here; until then the loop takes requests, and waits for nobody."""
        self._recommender.when_heard(partial(self._finish, batch, begun))

    def _answer_from_memory(self, call: Call) -> None:
        now_ms, found = clock.now_ms(), list[Answer]()
        try:
            found = [self._recommender.from_memory(request, now_ms) for request in call[0]]
        except Exception as error:
            _send(call, failed(error, call[0]))
        else:
            _send(call, found)

    def _begin(self) -> InFlight:
        return self._begin_all(self._take())

    def _begin_all(self, batch: list[Together]) -> InFlight:
        requests = [request for together in batch for request in together.requests]
        try:
            return batch, self._recommender.begin(requests, clock.now_ms())
        except Exception as error:
            return batch, partial(_fail, error)

    def _take(self) -> list[Together]:
        """Return the next batch."""
        batch: list[Together] = []
        of_key: dict[bytes, Together] = {}
        left = MAX_BATCH if len(self._calls[0][0]) == 1 else MAX_OF_CALLS
        while self._calls and left > 0:
            call = self._calls.popleft()
            requests, key, _ = call
            left -= len(requests)
            self._n_waiting -= len(requests)
            same = of_key.get(key) if key else None
            if same is not None:
                same.calls.append(call)
                continue
            together = Together(requests, [call])
            batch.append(together)
            if key:
                of_key[key] = together
        return batch

    def _finish(self, batch: list[Together], begun: Callable[[], list[Answer]]) -> None:
        # Where enough wait, Redis reads the rows of the next batch while this one is worked out.
        following = self._begin() if self._n_waiting >= MAX_BATCH else None
        loop = asyncio.get_running_loop()
        answers = self._worked_out(batch, begun, loop)
        if following is not None:
            self._go_on(*following)
        elif self._calls:
            self._schedule()
        else:
            self._scheduled = False
        self._hand_over(batch, answers)

    def _worked_out(
        self, batch: list[Together], begun: Callable[[], list[Answer]], loop: asyncio.AbstractEventLoop
    ) -> list[Answer]:
        """Return the answers to a batch; none where it fails, which is then looked into."""
        try:
            return begun()
        except StoreUnavailable as error:  # not of what was asked
            for together in batch:
                for call in together.calls:
                    _send(call, error)
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                for part in (batch[:half], batch[half:]):
                    loop.call_soon(self._answer_part, part, loop)
            else:
                for call in batch[0].calls:
                    _send(call, failed(error, call[0]))
        return []

    def _answer_part(self, batch: list[Together], loop: asyncio.AbstractEventLoop) -> None:
        """Answer a part of a batch that failed; between two parts the loop does what else there is."""
        begun = self._begin_all(batch)
        self._recommender.when_heard(lambda: self._hand_over(batch, self._worked_out(*begun, loop)))

    def _hand_over(self, batch: list[Together], answers: list[Answer]) -> None:
        first = 0
        for requests, calls in batch if answers else ():
            mine = answers[first : first + len(requests)]
            first += len(requests)
            for call in calls:
                if _send(call, mine) and self._impressions is not None:
                    for request, answer in zip(requests, mine, strict=True):
                        self._impressions.note(request, answer)


def _send(call: Call, found: Sequence[Answer] | Exception) -> bool:
    """Give a call what was found, or else the reason why that cannot be said; say whether it has its answers."""
    requests, _, done = call
    try:
        done(found)
        return not isinstance(found, Exception)
    except Exception as error:  # of this call; the others of its batch have answers
        wrong = failed(error, requests)
    try:
        done(wrong)
    except Exception as error:
        log.error("a caller could not be told that its call failed", request_id=wrong.request_id, exc_info=error)
    return False
