"""Load over HTTP from one process that spends little on itself: every answer is read and checked, times are kept."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
import numpy as np

BodyOf = Callable[[int], bytes]
"""The request's body for a user's number."""
FullLists = Callable[[bytes], int]
"""How many full lists an answer, as it came, holds."""


class Load(NamedTuple):
    """What came of a measurement."""

    times_s: list[float]
    """Of each call; under open load counted from the moment it was due."""
    full: int
    """Lists that came and were full."""
    bad: int
    """Calls without one."""
    elapsed_s: float


class LoadConnection(asyncio.Protocol):
    """A connection that the server must not close before the load has `ended`, which fails then."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self._ended = ended

    def connection_lost(self, error: Exception | None) -> None:
        """Say to those who wait that no answer will come."""
        if not self._ended.done():
            self._ended.set_exception(ConnectionError("the server closed a connection under load"))


class _Connection(LoadConnection):
    """One kept-alive connection, one request at a time."""

    def __init__(self, ended: asyncio.Future[None], done: "Callable[[_Connection, bytes], None]") -> None:
        super().__init__(ended)
        self._done, self.due_s = done, 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._begin()

    def _begin(self) -> None:
        self._parser, self._parts = httptools.HttpResponseParser(self), list[bytes]()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        content = b"".join(self._parts) if self._parser.get_status_code() == 200 else b"{}"
        self._begin()
        self._done(self, content)

    def ask(self, head: bytes, body: bytes, due_s: float) -> None:
        self.due_s = due_s
        self.transport.write(head % len(body) + body)


class HttpLoad:
    """Connections to one path that ask for random users."""

    def __init__(self, host: str, port: int, path: str, users: int, body_of: BodyOf, full_lists: FullLists) -> None:
        self._where = host, port
        self._head = (
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %%d\r\n\r\n"
            % path.encode()
        )
        self._users, self._body_of, self._full_lists = users, body_of, full_lists

    async def _opened(
        self, n: int, ended: asyncio.Future[None], done: Callable[[_Connection, bytes], None]
    ) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(lambda: _Connection(ended, done), *self._where))[1] for _ in range(n)]

    async def closed(self, clients: int, seconds: float, seed: int = 1) -> Load:
        """Let every client ask again as soon as it has its answer. Raises ConnectionError."""
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()
        started = time.perf_counter()
        waiting, ended = clients, asyncio.get_running_loop().create_future()

        def done(connection: _Connection, content: bytes) -> None:
            nonlocal waiting
            now = time.perf_counter()
            times.append(now - connection.due_s)
            lists.append(self._full_lists(content))
            if now < started + seconds:
                connection.ask(self._head, self._body_of(int(rng.integers(self._users))), time.perf_counter())
            else:
                waiting -= 1
                if not (waiting or ended.done()):
                    ended.set_result(None)

        connections = await self._opened(clients, ended, done)
        for connection in connections:
            connection.ask(self._head, self._body_of(int(rng.integers(self._users))), time.perf_counter())
        await ended
        for connection in connections:
            connection.transport.close()
        return Load(times, sum(lists), lists.count(0), time.perf_counter() - started)

    async def open(self, rate: float, clients: int, seconds: float, seed: int = 1) -> Load:
        """Send requests at random moments (Poisson), `rate` a second, whatever becomes of those before.

        A request that finds all connections busy waits for one, and its time runs. Raises ConnectionError.
        """
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()
        started = time.perf_counter() + 0.1
        due = deque((started + np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))).tolist())
        n, ended, late = len(due), asyncio.get_running_loop().create_future(), deque[float]()

        def done(connection: _Connection, content: bytes) -> None:
            times.append(time.perf_counter() - connection.due_s)
            lists.append(self._full_lists(content))
            if late:
                send(connection, late.popleft())
            else:
                idle.append(connection)
            if len(times) == n and not ended.done():
                ended.set_result(None)

        def send(connection: _Connection, at: float) -> None:
            connection.ask(self._head, self._body_of(int(rng.integers(self._users))), at)

        idle = deque(await self._opened(clients, ended, done))
        connections = list(idle)
        while due and not ended.done():
            await asyncio.sleep(max(due[0] - time.perf_counter(), 0))
            while due and due[0] <= time.perf_counter():
                if idle:
                    send(idle.popleft(), due.popleft())
                else:
                    late.append(due.popleft())
        await ended
        for connection in connections:
            connection.transport.close()
        return Load(times, sum(lists), lists.count(0), time.perf_counter() - started)
