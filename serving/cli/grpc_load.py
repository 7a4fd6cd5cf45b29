"""Load over gRPC from one process: h2 without grpclib's or grpcio's ways around it, every answer read and checked."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from serving.cli.http_load import BodyOf, FullLists, Load, LoadConnection
from serving.grpc_calls import SERVICE, framed, next_message

ROOM = 1 << 24
"""Bytes a server may send ahead: what comes is read at once."""


class _Connection(LoadConnection):
    """A client's connection: calls of one method, and what comes of them."""

    def __init__(
        self, ended: asyncio.Future[None], host: str, method: str, came: Callable[[int, bytes], None],
        over: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`came` is told each message of a call, `over` that it has ended."""
        super().__init__(ended)
        self._came, self._over = came, over
        self._headers = [
            (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{method}"), (":authority", host),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "headrace-bench"),
        ]  # fmt: skip
        plain = {f"{what}_{way}bound_headers": False for what in ("validate", "normalize") for way in ("in", "out")}
        self._http2 = H2Connection(H2Configuration(**plain))  # type: ignore[arg-type]
        self._last = set[int]()
        self._parts, self._said = dict[int, bytearray](), dict[int, bytearray]()
        """Of calls: what came and is no whole message yet, and what is to be sent."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._scheduled = transport, False
        self._http2.initiate_connection()
        self._http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: ROOM})
        self._http2.increment_flow_control_window(ROOM)
        self._flush()

    def _flush(self) -> None:
        """Send what was said, of a stream all together: h2 works as long for a message as for twenty."""
        self._scheduled = False
        said, self._said = self._said, {}
        for stream, data in said.items():
            self._http2.send_data(stream, bytes(data), end_stream=stream in self._last)
        self._transport.write(self._http2.data_to_send())

    def _flush_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def call(self) -> int:
        """Begin a call and return its number."""
        stream = self._http2.get_next_available_stream_id()
        self._http2.send_headers(stream, self._headers)
        self._parts[stream] = bytearray()
        return stream

    def say(self, stream: int, message: bytes) -> None:
        self._said.setdefault(stream, bytearray()).extend(framed(message))
        self._flush_soon()

    def end(self, stream: int) -> None:
        """Say nothing more in a call."""
        self._last.add(stream)
        self._said.setdefault(stream, bytearray())
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        read = dict[int, int]()
        for event in self._http2.receive_data(data):
            if isinstance(event, DataReceived):
                read[event.stream_id] = read.get(event.stream_id, 0) + event.flow_controlled_length
                self._take(event.stream_id, event.data)
            elif isinstance(event, StreamEnded | StreamReset):
                self._last.discard(event.stream_id)
                self._parts.pop(event.stream_id, None)
                self._over(event.stream_id)
        for stream, size in read.items():
            self._http2.acknowledge_received_data(size, stream)
        self._flush_soon()

    def _take(self, stream: int, data: bytes) -> None:
        held, at = self._parts[stream], 0
        held += data
        while True:
            message, at = next_message(held, at)
            if message is None:
                break
            self._came(stream, message)
        del held[:at]

    def close(self) -> None:
        self._transport.close()


class GrpcLoad:
    """One connection whose calls ask for random users."""

    def __init__(self, host: str, port: int, users: int, body_of: BodyOf, full_lists: FullLists) -> None:
        """`full_lists` is given an answer as it came."""
        self._where, self._users = (host, port), users
        self._body_of, self._full_lists = body_of, full_lists

    async def _connected(
        self, ended: asyncio.Future[None], method: str, came: Callable[[int, bytes], None], over: Callable[[int], None]
    ) -> Any:
        loop = asyncio.get_running_loop()
        name = f"{self._where[0]}:{self._where[1]}"
        return (await loop.create_connection(lambda: _Connection(ended, name, method, came, over), *self._where))[1]

    async def calls(self, clients: int, seconds: float, seed: int = 1) -> Load:
        """Have so many calls under way, each followed by the next. Raises ConnectionError."""
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()
        under_way = dict[int, float]()
        answered = dict[int, int]()
        started = time.perf_counter()
        ended = asyncio.get_running_loop().create_future()

        def begin() -> None:
            stream = connection.call()
            under_way[stream] = time.perf_counter()
            connection.say(stream, self._body_of(int(rng.integers(self._users))))
            connection.end(stream)

        def came(stream: int, message: bytes) -> None:
            answered[stream] = self._full_lists(message)

        def over(stream: int) -> None:
            now = time.perf_counter()
            times.append(now - under_way.pop(stream))
            lists.append(answered.pop(stream, 0))
            if now < started + seconds:
                begin()
            elif not (under_way or ended.done()):
                ended.set_result(None)

        connection = await self._connected(ended, "Recommend", came, over)
        for _ in range(clients):
            begin()
        await ended
        connection.close()
        return Load(times, sum(lists), lists.count(0), time.perf_counter() - started)

    async def stream(self, clients: int, seconds: float, seed: int = 1) -> Load:
        """Have so many requests of one stream under way, each answer followed by the next. Raises ConnectionError."""
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()
        under_way = deque[float]()
        started = time.perf_counter()
        ended = asyncio.get_running_loop().create_future()

        def ask(stream: int) -> None:
            under_way.append(time.perf_counter())
            connection.say(stream, self._body_of(int(rng.integers(self._users))))

        def came(stream: int, message: bytes) -> None:
            now = time.perf_counter()
            times.append(now - under_way.popleft())
            lists.append(self._full_lists(message))
            if now < started + seconds:
                ask(stream)
            elif not under_way:
                connection.end(stream)

        def over(stream: int) -> None:
            if not ended.done():
                ended.set_result(None)

        connection = await self._connected(ended, "RecommendStream", came, over)
        stream = connection.call()
        for _ in range(clients):
            ask(stream)
        await ended
        connection.close()
        return Load(times, sum(lists), lists.count(0) + len(under_way), time.perf_counter() - started)
