"""A call in the place of grpclib's buffer of its stream: it is told what comes, and answers without a task.

One with a single request (`HotCall`) and one with a stream of them (`HotStream`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message
from h2.exceptions import ProtocolError

from serving.grpc_calls import MAX_MESSAGE, PREFIX_BYTES, cut_short, framed, next_message, only_message, too_large

HEADERS = [(":status", "200"), ("content-type", "application/grpc+proto")]
OK = [("grpc-status", "0")]
LATER = 1 << 16
"""Bytes of a request whose room is given back with its answer; of larger ones at once, or it would not fit."""
MAX_IN_STREAM = 256
"""Requests of a stream under way: a client that sends faster waits."""

Reply = Callable[[bytes | GRPCError], None]
Answer = Callable[[bytes, Reply], None]
"""Answer a request, as it came; never raises."""


class _Call:
    """What both kinds share: their end."""

    def __init__(self, stream: Any, release: Callable[[], None], answer: Answer) -> None:
        self._stream, self.release, self._answer = stream, release, answer
        self._body, self._unacked = bytearray(), 0
        self._begun = self._done = False
        """Whether headers were sent, and whether nothing more will be."""
        self._sending: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def unacked_size(self) -> int:
        unacked, self._unacked = self._unacked, 0
        return unacked

    def _acknowledge(self) -> None:
        """Give the client back the room of what it sent."""
        if self._unacked:
            self._stream.connection.ack(self._stream.id, self.unacked_size())

    def late(self) -> None:
        self.end(GRPCError(Status.DEADLINE_EXCEEDED, ""))

    def end(self, error: GRPCError | None = None) -> None:
        """Say how the call ended; to nobody where the client has gone."""
        if self._done:
            return
        self._stop()
        stream, h2 = self._stream, self._stream._h2_connection
        if stream.closable:
            headers = [] if self._begun else HEADERS
            if error is None:
                h2.send_headers(stream.id, [*headers, *OK], end_stream=True)
            else:
                status, message = str(error.status.value), encode_grpc_message(error.message or "")
                said = [*headers, ("grpc-status", status), ("grpc-message", message)]
                h2.send_headers(stream.id, said, end_stream=True)
                if stream.closable:  # the client has more to say
                    stream.reset_nowait()
            stream.connection.flush()
        self.release()

    def give_up(self) -> None:
        """Answer no more: nobody listens."""
        self._stop()
        self.release()

    def _stop(self) -> None:
        self._done = True
        if self.timer is not None:
            self.timer.cancel()
        if self._sending is not None and self._sending is not asyncio.current_task():
            self._sending.cancel()

    def _send(self, data: bytearray) -> bool:
        """Send what the client takes now and remove it from `data`; say whether that was all."""
        stream, h2 = self._stream, self._stream._h2_connection
        if not self._begun:
            self._begun = True
            h2.send_headers(stream.id, HEADERS)
        while data and stream.connection.write_ready.is_set():
            room = min(h2.local_flow_control_window(stream.id), h2.max_outbound_frame_size)
            if room <= 0:
                break
            h2.send_data(stream.id, bytes(data[:room]))
            del data[:room]
        stream.connection.flush()
        return not data

    async def _send_slowly(self, data: bytearray, then: Callable[[], None]) -> None:
        """Send as much at a time as the client takes."""
        try:
            await self._stream.send_data(bytes(data))
            data.clear()
        except ProtocolError:  # it has gone
            self.give_up()
        else:
            self._sending = None
            then()

    def _send_all(self, data: bytearray, then: Callable[[], None]) -> None:
        """Send, and go on with `then` as soon as the client has room for all of it."""
        if not self._stream.closable:
            self.give_up()
        elif self._send(data):
            then()
        else:
            self._sending = asyncio.get_running_loop().create_task(self._send_slowly(data, then))


class HotCall(_Call):
    """A call with one request and one answer."""

    def add(self, data: bytes, ack_size: int) -> None:
        self._body += data
        self._unacked += ack_size
        if len(self._body) > LATER:
            self._acknowledge()
        if len(self._body) > MAX_MESSAGE + PREFIX_BYTES:
            self._body.clear()
            self.end(too_large())

    def eof(self) -> None:
        """Ask, as the request has come."""
        if self._done:
            return
        try:
            body = only_message(self._body)
        except GRPCError as error:
            self.end(error)
        else:
            self._answer(body, self._reply)

    def _reply(self, answer: bytes | GRPCError) -> None:
        if isinstance(answer, GRPCError):
            self.end(answer)
        elif not self._done:
            self._send_all(bytearray(framed(answer)), self.end)


class HotStream(_Call):
    """A call with many requests, answered in their order; the first wrong one ends it behind those before."""

    def __init__(self, stream: Any, release: Callable[[], None], answer: Answer) -> None:
        super().__init__(stream, release, answer)
        self._waiting: deque[list[bytes | GRPCError]] = deque()
        """Of each request under way the answer, as soon as it is there."""
        self._ready = bytearray()
        self._all_came = self._scheduled = False
        self._wrong: GRPCError | None = None

    def add(self, data: bytes, ack_size: int) -> None:
        self._body += data
        self._unacked += ack_size
        self._take()

    def eof(self) -> None:
        self._all_came = True
        self._schedule()

    @property
    def is_idle(self) -> bool:
        """Whether everything that has come is answered."""
        return not (self._waiting or self._ready or self._sending or self._scheduled or self._body)

    def _take(self) -> None:
        """Ask for what has come whole; what is too much waits, and so does the client, whose room is not given back."""
        at = 0
        while not self._done and self._wrong is None and len(self._waiting) < MAX_IN_STREAM:
            place: list[bytes | GRPCError] = []
            try:
                message, at = next_message(self._body, at)
            except GRPCError as error:
                self._wrong = error
                self._schedule()
                break
            if message is None:
                self._acknowledge()
                break
            self._waiting.append(place)
            self._answer(message, partial(self._answered, place))
        del self._body[:at]

    def _answered(self, place: list[bytes | GRPCError], answer: bytes | GRPCError) -> None:
        place.append(answer)
        if self._waiting and self._waiting[0] is place:
            self._schedule()

    def _schedule(self) -> None:
        """Write in the next turn of the loop, by when the others of a batch are answered: h2 works as long for one."""
        if not (self._scheduled or self._sending or self._done):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._scheduled = False
        if self._done:
            return
        self._collect()
        self._take()
        if self._ready:
            self._send_all(self._ready, self._go_on)
        else:
            self._go_on()

    def _collect(self) -> None:
        while self._waiting and self._waiting[0]:
            (answer,) = self._waiting.popleft()
            if isinstance(answer, GRPCError):
                self._wrong = answer
                self._waiting.clear()
            else:
                self._ready += framed(answer)

    def _go_on(self) -> None:
        """End the call if all is said, or write what was answered while the client had no room."""
        if self._waiting:
            if self._waiting[0]:
                self._schedule()
        elif self._wrong is not None:
            self.end(self._wrong)
        elif self._all_came:
            self.end(cut_short() if self._body else None)
