"""Load over gRPC from one process: grpcio's client on an event loop, every answer read and checked."""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import grpc
import numpy as np

from headrace.bench.http_load import BodyOf, FullLists, Load
from serving.grpc.interceptors import SERVICE

OPTIONS = (("grpc.max_receive_message_length", -1),)


class GrpcLoad:
    """One connection whose calls ask for random users."""

    def __init__(self, host: str, port: int, users: int, body_of: BodyOf, full_lists: FullLists) -> None:
        """`full_lists` is given an answer as it came."""
        self._address, self._users = f"{host}:{port}", users
        self._body_of, self._full_lists = body_of, full_lists

    async def calls(self, clients: int, seconds: float, seed: int = 1) -> Load:
        """Have so many calls under way, each followed by the next. Raises ConnectionError."""
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()

        async def one_after_the_other(call: Any) -> None:
            while (began := time.perf_counter()) < started + seconds:
                try:
                    answer = await call(self._body_of(int(rng.integers(self._users))))
                except grpc.aio.AioRpcError as error:
                    _closed_or_refused(error)
                    full = 0
                else:
                    full = self._full_lists(answer)
                times.append(time.perf_counter() - began)
                lists.append(full)

        async with grpc.aio.insecure_channel(self._address, OPTIONS) as channel:
            call = channel.unary_unary(f"/{SERVICE}/Recommend")
            started = time.perf_counter()
            await asyncio.gather(*(one_after_the_other(call) for _ in range(clients)))
        return Load(times, sum(lists), lists.count(0), time.perf_counter() - started)

    async def stream(self, clients: int, seconds: float, seed: int = 1) -> Load:
        """Have so many requests of one stream under way, each answer followed by the next. Raises ConnectionError."""
        rng, times, lists = np.random.default_rng(seed), list[float](), list[int]()
        under_way, room = deque[float](), asyncio.Semaphore(clients)

        async def ask(call: Any) -> None:
            with contextlib.suppress(asyncio.InvalidStateError):  # the call has ended, as its status says
                while time.perf_counter() < started + seconds:
                    await room.acquire()
                    under_way.append(time.perf_counter())
                    await call.write(self._body_of(int(rng.integers(self._users))))
                await call.done_writing()

        async with grpc.aio.insecure_channel(self._address, OPTIONS) as channel:
            call = channel.stream_stream(f"/{SERVICE}/RecommendStream")()
            started = time.perf_counter()
            asking = asyncio.create_task(ask(call))
            try:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    times.append(time.perf_counter() - under_way.popleft())
                    lists.append(self._full_lists(answer))
                    room.release()
            except grpc.aio.AioRpcError as error:
                _closed_or_refused(error)
            finally:
                asking.cancel()
        return Load(times, sum(lists), lists.count(0) + len(under_way), time.perf_counter() - started)


def _closed_or_refused(error: grpc.aio.AioRpcError) -> None:
    """Raise ConnectionError where the server has gone; a call that it refused is one without a list."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        raise ConnectionError("the server closed a connection under load") from None
