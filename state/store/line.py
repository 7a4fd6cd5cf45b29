"""Reads with a deadline, for a thread that must not block on Redis.

A line sends questions and takes the answers in their order. A timeout ends the line and every question on it, so that
a part of a late answer is never taken for another one's.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

from state.store.row_block import pack

CHUNK_BYTES = 1 << 16
MAY_WRITE_MS = 20
NOT_YET = BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError
FAILURES = redis.RedisError, hiredis.HiredisError, OSError


class LineBroken(Exception):
    """The answer did not come, and none will over this line."""


class Question:
    """A read of keys; `values` are there when `over` is true and `error` is None."""

    def __init__(self, n_answers: int) -> None:
        self.values: list[bytes | None] = []
        self.error: Exception | None = None
        self._n_left = n_answers

    @property
    def over(self) -> bool:
        """Whether all values are there, or none will come."""
        return self._n_left == 0 or self.error is not None

    def take(self, answer: list[bytes | None]) -> None:
        """Append the values of one command."""
        self.values += answer
        self._n_left -= 1


class Line:
    """The base of all lines: questions under way, in order. One thread uses a line."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        """Why it is broken, None while it is not."""
        self.heard_s = time.perf_counter()
        """When the last answer came."""
        self._under_way: deque[Question] = deque()
        self._poll = select.poll()

    def ask(self, keys: Sequence[bytes]) -> Question:
        """Send for the values of keys and do not wait for them; raises nothing, but `collect` may."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Return what becomes readable when there is something for `advance`."""
        raise NotImplementedError

    def _receive(self) -> bool:
        """Take what has come for the first question under way; return whether there was anything."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the connection."""
        raise NotImplementedError

    def advance(self) -> None:
        """Take all answers that have come, without waiting."""
        try:
            while self._under_way and self._receive():
                pass
        except FAILURES as error:
            self.end(error)

    def collect(self, question: Question, until_s: float) -> list[bytes | None]:
        """Return the values, waiting until `until_s` (`time.perf_counter`) at most. Raises LineBroken."""
        self.advance()
        while not question.over:
            left_s = until_s - time.perf_counter()
            if left_s <= 0 or not self._poll.poll(left_s * 1000 + 1):
                self.end(TimeoutError("no answer in time"))
                break
            self.advance()
        if question.error is not None:
            raise LineBroken(str(question.error)) from question.error
        return question.values

    def end(self, error: Exception) -> None:
        """Give up all that is under way; the line is of no more use, and to be closed."""
        self.error = self.error or error
        for question in self._under_way:
            question.error = error
        self._under_way.clear()

    def _next_is_over(self) -> None:
        self.heard_s = time.perf_counter()
        if self._under_way[0].over:
            self._under_way.popleft()


class RedisLine(Line):
    """A line to one Redis: a connection that never blocks."""

    def __init__(self, connection: Any, most: int) -> None:
        """Connect; `most`: keys of one command. Raises what redis-py raises."""
        super().__init__()
        connection.connect()
        self._connection, self._most = connection, most
        self._socket: socket.socket = connection._sock
        self._socket.setblocking(False)
        self._poll.register(self._socket, select.POLLIN)
        self._reader: Any = hiredis.Reader()
        self._received = bytearray(CHUNK_BYTES)

    def ask(self, keys: Sequence[bytes]) -> Question:
        """Send for the values of keys."""
        chunks = [keys[i : i + self._most] for i in range(0, len(keys), self._most)]
        question = Question(len(chunks))
        if self.error is not None:
            question.error = self.error
        elif chunks:
            self._under_way.append(question)
            try:
                self._send(b"".join(pack(("MGET", *chunk)) for chunk in chunks))
            except FAILURES as error:
                self.end(error)
        return question

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _send(self, commands: bytes) -> None:
        left = memoryview(commands)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except NOT_YET:
                # Redis takes no more: it answers what it has, or it hangs.
                self.advance()
                if self.error is not None or not _may_write(self._socket):
                    raise TimeoutError("a question was not taken in time") from None

    def _receive(self) -> bool:
        answer = self._reader.gets()
        while answer is False:
            try:
                n = self._socket.recv_into(self._received)
            except NOT_YET:
                return False
            if n == 0:
                raise ConnectionError("Redis closed the connection")
            self._reader.feed(self._received, 0, n)
            answer = self._reader.gets()
        if not isinstance(answer, list):
            raise redis.ResponseError(str(answer))
        self._under_way[0].take(answer)
        self._next_is_over()
        return True


class ThreadLine(Line):
    """A line over a client that blocks, which a thread of the line's own calls: for a cluster."""

    def __init__(self, read: Callable[[Sequence[bytes]], list[bytes | None]]) -> None:
        super().__init__()
        self._read = read
        self._asked: deque[Sequence[bytes]] = deque()
        self._answers: deque[list[bytes | None] | Exception] = deque()
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._poll.register(self._woken, select.POLLIN)
        self._work = threading.Semaphore(0)
        threading.Thread(target=self._run, name="store line", daemon=True).start()

    def ask(self, keys: Sequence[bytes]) -> Question:
        """Hand the question to the thread."""
        question = Question(1 if keys else 0)
        if self.error is not None:
            question.error = self.error
        elif keys:
            self._under_way.append(question)
            self._asked.append(keys)
            self._work.release()
        return question

    def fileno(self) -> int:
        """Return the descriptor that the thread writes to after each answer."""
        return self._woken.fileno()

    def close(self) -> None:
        """End the thread when its call returns."""
        self.error = self.error or ConnectionError("the line was closed")
        self._work.release()
        self._woken.close()

    def _run(self) -> None:
        while self._work.acquire() and self.error is None:
            try:
                self._answers.append(self._read(self._asked.popleft()))
            except Exception as error:
                self._answers.append(error)
            with contextlib.suppress(OSError):  # full: it is awake; closed: nobody waits
                self._wakes.send(b".")
        self._wakes.close()

    def _receive(self) -> bool:
        with contextlib.suppress(*NOT_YET):
            self._woken.recv(CHUNK_BYTES)
        if not self._answers:
            return False
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise ConnectionError(str(answer)) from answer
        self._under_way[0].take(answer)
        self._next_is_over()
        return True


def _may_write(there: socket.socket) -> bool:
    """Wait a moment for room to send; return whether there is some."""
    writable = select.poll()
    writable.register(there, select.POLLOUT)
    return bool(writable.poll(MAY_WRITE_MS))
