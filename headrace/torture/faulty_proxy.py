"""A TCP proxy in front of a Redis that hangs, delays or cuts what passes: for tests and `headrace bench outage`."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from state.ports import free_port

Fault = Literal["swallow", "delay", "cut"]
DELAY_S = 2.0
CHUNK_BYTES = 1 << 16


class FaultyProxy:
    """Passes connections on to a server on loopback or a socket, with a fault or without; a context manager.

    swallow: bytes are taken and never passed on. delay: each piece of an answer comes DELAY_S late.
    cut: connections are ended, new ones as soon as they are there.
    """

    def __init__(self, url: str) -> None:
        """`url` of the Redis behind it: unix://… or redis://…"""
        self._to = urlsplit(url)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._fault: Fault | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def play(self, fault: Fault | None) -> None:
        """Have what passes from now on meet this fault; None ends it, and what was swallowed is lost."""
        self._wait_for(self._play(fault))

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        self._wait_for(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _wait_for(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def _play(self, fault: Fault | None) -> None:
        if fault == "cut" or self._fault == "swallow":  # after lost bytes a connection is of no more use
            for writer in self._writers:
                writer.transport.abort()
        self._fault = fault

    async def _stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault == "cut":
            writer.transport.abort()
            return
        try:
            behind, to_server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_server}
        there = asyncio.create_task(self._pump(reader, to_server, 0.0))
        back = asyncio.create_task(self._pump(behind, writer, DELAY_S))
        self._tasks |= {there, back}
        await asyncio.gather(there, back, return_exceptions=True)
        self._writers -= {writer, to_server}
        self._tasks -= {there, back}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._to.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(self._to.path))
        return await asyncio.open_connection(self._to.hostname, self._to.port)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(CHUNK_BYTES):
                if self._fault == "swallow":
                    continue
                if self._fault == "delay":
                    await asyncio.sleep(delay_s)
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
