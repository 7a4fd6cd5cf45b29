"""Requests that arrive while the loop is busy are answered together, at most 16 at a time."""

import asyncio
import time
from collections import deque

from serving.requests import Answer, RecommendRequest
from serving.service import Recommender

MAX_BATCH = 16


class Gather:
    """Hands batches of requests to the recommender. One event loop uses it."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._waiting: deque[tuple[RecommendRequest, asyncio.Future[Answer]]] = deque()
        self._scheduled = False

    async def recommend(self, request: RecommendRequest) -> Answer:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((request, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)
        return await future

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        try:
            answers = self._recommender.recommend([request for request, _ in batch], time.time_ns() // 1_000_000)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:  # the waiting requests must hear of it, and the next batch must go on
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        if self._waiting:
            loop.call_soon(self._flush, loop)
        else:
            self._scheduled = False
