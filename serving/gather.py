"""Requests that arrive while the loop is busy are answered together, at most 16 at a time.

Equal requests of one batch are answered once. The queue is bounded: past the first
mark requests are answered at once from memory, past the second they are refused.
"""

import asyncio
import time
from collections import deque

from prometheus_client import Counter

from serving.impressions import Impressions
from serving.requests import Answer, RecommendRequest
from serving.service import Recommender

MAX_BATCH = 16
QUIET_TURNS = 4
"""Turns of the loop without a new request after which a batch is full enough: no timer, and no wait of an idle loop.

A gRPC request takes several turns from its socket to its handler, an HTTP one takes one.
"""
CHEAP_ABOVE, REFUSE_ABOVE = 1_000, 2_000
SHED = Counter("headrace_shed", "Requests not answered in full because too many waited", ["how"])


class Overloaded(Exception):
    """Too many requests wait; try again in a second."""


class Gather:
    """Hands batches of requests to the recommender. One event loop uses it."""

    def __init__(self, recommender: Recommender, impressions: Impressions | None = None) -> None:
        self._recommender, self._impressions = recommender, impressions
        self._waiting: deque[tuple[RecommendRequest, bytes, asyncio.Future[Answer]]] = deque()
        self._scheduled = False

    async def recommend(self, request: RecommendRequest, key: bytes = b"") -> Answer:
        """Answer one request; requests with the same `key` are equal. Raises Overloaded."""
        if len(self._waiting) >= CHEAP_ABOVE:
            if len(self._waiting) >= REFUSE_ABOVE:
                SHED.labels("refused").inc()
                raise Overloaded(f"{len(self._waiting)} requests wait")
            if len(self._waiting) % 2:  # half of them, so that the queue grows slower and some are still in full
                SHED.labels("from_memory").inc()
                return self._recommender.from_memory(request, time.time_ns() // 1_000_000)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((request, key, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop, 0, 0)
        answer = await future
        if self._impressions is not None:
            self._impressions.note(request, answer)
        return answer

    def _flush(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        n = len(self._waiting)
        if n < MAX_BATCH and (n > seen or quiet < QUIET_TURNS):
            loop.call_soon(self._flush, loop, n, 0 if n > seen else quiet + 1)
            return
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        place_of: dict[bytes, int] = {}
        requests: list[RecommendRequest] = []
        places = []
        for n, (request, key, _) in enumerate(batch):
            place = place_of.setdefault(key or n.to_bytes(2, "big"), len(requests))
            if place == len(requests):
                requests.append(request)
            places.append(place)
        try:
            answers = self._recommender.recommend(requests, time.time_ns() // 1_000_000)
            for (_, _, future), place in zip(batch, places, strict=True):
                if not future.done():
                    future.set_result(answers[place])
        except Exception as error:  # the waiting requests must hear of it, and the next batch must go on
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
        if self._waiting:
            loop.call_soon(self._flush, loop, 0, 0)
        else:
            self._scheduled = False
