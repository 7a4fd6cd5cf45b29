"""A call with a stream of requests: answers keep their order, and the number under way is bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from serving.grpc.failures import Code, Failure

MAX_IN_STREAM = 256
"""Requests of one stream that may be under way; a client that sends faster waits."""

Answer = asyncio.Future[bytes | Exception]


class RequestStream:
    """Reads requests while it writes answers. The first invalid request ends it, once those before are answered."""

    def __init__(self, context: Any, ask: Callable[[bytes], Answer]) -> None:
        """`ask` starts to answer a request, given its bytes, and never raises."""
        self._context, self._ask = context, ask
        self._room = asyncio.Semaphore(MAX_IN_STREAM)
        self._under_way = asyncio.Queue[Answer | Exception | None]()
        self._reading = asyncio.create_task(self._read())

    async def run(self) -> None:
        """Answer until the client has sent everything. Raises the error of the first invalid request."""
        try:
            while (under_way := await self._under_way.get()) is not None:
                found = under_way if isinstance(under_way, Exception) else await under_way
                if isinstance(found, Exception):
                    raise found
                await self._context.write(found)
                self._room.release()
        finally:
            self._reading.cancel()

    def stop(self) -> None:
        """Read no more; the stream ends with UNAVAILABLE as soon as what was read is answered."""
        if self._reading.cancel():
            self._under_way.put_nowait(Failure(Code.UNAVAILABLE, "the server stops"))

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                message = await self._context.read()
                if message is grpc.aio.EOF:
                    break
                self._under_way.put_nowait(self._ask(message))
        except Exception as error:  # the client has gone; who writes must not wait for ever
            self._under_way.put_nowait(error)
        else:
            self._under_way.put_nowait(None)


class OpenStreams:
    """The streams that are open, which their clients may keep so for ever."""

    def __init__(self) -> None:
        self._streams = set[RequestStream]()
        self._stopping = False

    async def run(self, context: Any, ask: Callable[[bytes], Answer]) -> None:
        """Answer the requests of a stream until it ends (`RequestStream.run`)."""
        stream = RequestStream(context, ask)
        if self._stopping:
            stream.stop()
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)

    def stop(self) -> None:
        """End them, and those that are still to come, as soon as what was read is answered."""
        self._stopping = True
        for stream in self._streams:
            stream.stop()
