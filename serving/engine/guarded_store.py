"""All access of a server's event loop to the store, with a bound on every wait for Redis.

The loop reads over a line (`state.store.line`). It is called back when the first reply of a batch arrives, and works on
other things until then. Later reads of the batch block, since Redis has just replied; all reads of a batch together
have `timeout_s`. When a reply is late, the store is away: reads fail at once, while a thread opens new lines and
hands over the first one that gets a reply.

Other access (to rules, for example) runs in a few threads, with a bound on how much is under way.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import structlog

from serving.engine.metrics import AWAY
from state.rows import keys
from state.store.changes import ChangeFeed
from state.store.contract import Reading, Store, StoreUnavailable
from state.store.line import Line, LineBroken, Question

TIMEOUT_S, TRY_EVERY_S = 0.1, 0.1
BREAK_S = 1.0
"""How long a store without a line is left alone after it failed."""
LEAST_S = 0.02
"""A read may wait this long in any case: a batch that computes slowly is not Redis's fault."""
FRESH_S = 0.02
"""How long after an answer from Redis it counts as reachable without another check."""
THREADS, MOST_ASIDE = 4, 16

T = TypeVar("T")
Wake = Callable[[], None]
log = structlog.get_logger()


class _Waiting(NamedTuple):
    question: Question
    wake: Wake
    timer: asyncio.TimerHandle


class GuardedStore:
    """Reads of a store that is either here or known to be away. One thread reads through it, others may too."""

    def __init__(
        self, store: Store, timeout_s: float = TIMEOUT_S, open_line: Callable[[float], Line] | None = None
    ) -> None:
        """`open_line` opens a line, given how long that may take; None: the store answers at once, or fails."""
        self.plain, self.timeout_s, self.open_line = store, timeout_s, open_line
        self._line: Line | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._until_s = 0.0
        self._last: Question | None = None
        self._waiting: list[_Waiting] = []
        self._trouble: str | None = None
        self._again_s = 0.0
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self._places = threading.BoundedSemaphore(MOST_ASIDE)

    def attach(self) -> None:
        """Call in the loop: from now on what its thread reads has deadlines."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        if self.open_line is not None:
            try:
                self._line = self.open_line(self.timeout_s)
            except StoreUnavailable as error:
                self._lose(str(error))

    @property
    def is_away(self) -> bool:
        """Whether the store is known to be away, so that reads fail at once."""
        if self._trouble is not None and self.open_line is None and time.perf_counter() > self._again_s:
            self._trouble = None
        return self._trouble is not None

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys, None where there is none. Raises StoreUnavailable."""
        return self.begin_read(keys)()

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Send a read; return what collects its values: in the loop's thread within the time allowed, or it raises."""
        if self.is_away:
            return self._refuse
        line = self._line if threading.get_ident() == self._loop_thread else None
        if line is None:
            reading = self.plain.begin_read(keys)
            return lambda: self._read_plainly(reading)
        question = self._last = line.ask(keys)
        return lambda: self._collect(line, question)

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        """Return the feed of written rows with these prefixes (`Store.changes`)."""
        return self.plain.changes(key_prefixes)

    def allow(self, since_s: float) -> None:
        """Let what is read from now on take the time allowed, counted from `since_s` (`time.perf_counter`)."""
        self._until_s = since_s + self.timeout_s

    def when_answered(self, wake: Wake) -> None:
        """Call `wake` in a later turn of the loop: when the last read has its reply, or has failed."""
        line, question, loop = self._line, self._last, asyncio.get_running_loop()
        if line is None or question is None:
            loop.call_soon(wake)
            return
        if question.over and not self._is_fresh(line):  # no row was needed: does Redis answer at all?
            question = self._last = line.ask([keys.GENERATION])
        loop.call_soon(self._await, loop, line, question, wake)

    async def ready(self) -> None:
        """Return when Redis has answered, lately or now; what is read next may take the time allowed.

        Raises StoreUnavailable.
        """
        if self._line is not None and not self._is_fresh(self._line):
            self._last = self._line.ask([keys.GENERATION])
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_answered(lambda: None if answered.done() else answered.set_result(None))
            await answered
        if self.is_away:
            self._refuse()
        self.allow(time.perf_counter())

    async def aside(self, work: Callable[[Store], T]) -> T:
        """Return what `work` does with the store in a thread. Raises StoreUnavailable where that takes too long.

        What was begun may then still be done.
        """
        if self.is_away:
            self._refuse()
        if not self._places.acquire(blocking=False):
            raise StoreUnavailable("too many wait for the store")
        future = self._threads.submit(work, self.plain)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout_s)
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer in time") from None

    def close(self) -> None:
        """Let go of the line and the threads, not of the store."""
        self._closed.set()
        if self._line is not None:
            self._line.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_fresh(self, line: Line) -> bool:
        return time.perf_counter() - line.heard_s < FRESH_S

    def _refuse(self) -> list[bytes | None]:
        raise StoreUnavailable(self._trouble or "the store was away when this was asked for")

    def _read_plainly(self, reading: Reading) -> list[bytes | None]:
        try:
            return reading()
        except StoreUnavailable as error:
            if self.open_line is None:
                self._lose(str(error))
            raise

    def _collect(self, line: Line, question: Question) -> list[bytes | None]:
        try:
            values = line.collect(question, max(self._until_s, time.perf_counter() + LEAST_S))
        except LineBroken as error:
            self._lose(str(error), line)
            raise StoreUnavailable(f"Redis: {error}") from None
        if self._waiting and self._loop is not None:  # their answers may have come with this one
            self._loop.call_soon(self._wake_those_answered, self._loop, line)
        return values

    def _await(self, loop: asyncio.AbstractEventLoop, line: Line, question: Question, wake: Wake) -> None:
        line.advance()
        if line.error is not None:
            self._lose(str(line.error), line)
        if question.over:
            wake()
            return
        timer = loop.call_later(self.timeout_s, self._too_late, loop, line, question)
        if not self._waiting:
            loop.add_reader(line.fileno(), self._take, loop, line)
        self._waiting.append(_Waiting(question, wake, timer))

    def _take(self, loop: asyncio.AbstractEventLoop, line: Line) -> None:
        """Something has come."""
        line.advance()
        if line.error is not None:
            self._lose(str(line.error), line)
        else:
            self._wake_those_answered(loop, line)

    def _wake_those_answered(self, loop: asyncio.AbstractEventLoop, line: Line) -> None:
        over = [one for one in self._waiting if one.question.over]
        if not over:
            return
        self._waiting = [one for one in self._waiting if not one.question.over]
        if not self._waiting:
            loop.remove_reader(line.fileno())
        for one in over:
            one.timer.cancel()
            loop.call_soon(one.wake)

    def _too_late(self, loop: asyncio.AbstractEventLoop, line: Line, question: Question) -> None:
        line.advance()  # what has come while the loop was busy came in time
        if line.error is not None or not question.over:
            self._lose(str(line.error or "no answer in time"), line)
        else:
            self._wake_those_answered(loop, line)

    def _lose(self, why: str, line: Line | None = None) -> None:
        """Mark the store as away, and wake all who wait; a thread looks for its return."""
        if self._trouble is not None or line is not self._line:
            return
        self._trouble, self._line, self._again_s = why, None, time.perf_counter() + BREAK_S
        AWAY.set(1)
        log.warning("the store does not answer; answering from memory", error=why)
        waiting, self._waiting = self._waiting, []
        if line is not None:
            if waiting and self._loop is not None:
                self._loop.remove_reader(line.fileno())
            line.end(ConnectionError(why))
            line.close()
        if self.open_line is not None:
            threading.Thread(target=self._find_again, args=(self.open_line,), name="store", daemon=True).start()
        for one in waiting:
            one.timer.cancel()
            if self._loop is not None:
                self._loop.call_soon(one.wake)

    def _find_again(self, open_line: Callable[[float], Line]) -> None:
        """Try a new line until one answers; it becomes the loop's."""
        while not self._closed.is_set():
            try:
                line = open_line(self.timeout_s)
            except StoreUnavailable:
                self._closed.wait(TRY_EVERY_S)
                continue
            with contextlib.suppress(RuntimeError):  # the loop has ended
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._found_again, line)
            return

    def _found_again(self, line: Line) -> None:
        self._line, self._trouble = line, None
        AWAY.set(0)
        log.info("the store answers again")
        if self._closed.is_set():
            line.close()
