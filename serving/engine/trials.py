"""Trials, such as a preview of rules: they run beside the loop, a few at a time, with bounded time and memory."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving.request.budget import Budget

MOST, SECONDS, BYTES = 2, 5.0, 256 << 20
"""Trials at the same time, and what each may take."""

T = TypeVar("T")


class TooMany(Exception):
    """Others are being tried; try again in a second."""


class Trials:
    """Threads for trials; one event loop uses them."""

    def __init__(self, most: int = MOST, seconds: float = SECONDS, n_bytes: int = BYTES) -> None:
        self._most, self._seconds, self._bytes = most, seconds, n_bytes
        self._threads = ThreadPoolExecutor(most, "trial")
        self._under_way = 0

    async def run(self, prepare: Callable[[Budget], Callable[[], T]]) -> T:
        """Return what is found by the work that `prepare` returns: the one in a thread, the other here and now.

        Raises TooMany and TooMuch.
        """
        if self._under_way >= self._most:
            raise TooMany(f"{self._under_way} others are being tried")
        loop = asyncio.get_running_loop()
        future = self._threads.submit(prepare(Budget(self._seconds, self._bytes, time.perf_counter)))
        self._under_way += 1
        # Its place is free when the thread is, not when the caller has gone.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._end))
        return await asyncio.shield(asyncio.wrap_future(future))

    def _end(self) -> None:
        self._under_way -= 1
