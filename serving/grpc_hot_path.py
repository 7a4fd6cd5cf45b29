"""`Recommend` without a task, metadata and events, which cost more than everything else of a call together.

It is grpclib's handler of a connection (framing, flow control, resets stay as they are) that takes plain calls of that
one method itself and hands all others on to grpclib: it says what is wrong with their headers, or has the method of the
same name answer, which asks the same recommender.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, encode_grpc_message
from grpclib.server import Handler
from h2.exceptions import ProtocolError

from serving.grpc_calls import MAX_MESSAGE, PREFIX_BYTES, SERVICE, framed, only_message, secret_of, too_large

PATH = f"/{SERVICE}/Recommend"
CONTENT_TYPES = ("application/grpc", "application/grpc+proto")
HEADERS = [(":status", "200"), ("content-type", "application/grpc+proto")]
OK = [("grpc-status", "0")]
LATER = 1 << 16
"""Bytes of a request whose room is given back with its answer; of larger ones at once, or it would not fit."""

Reply = Callable[[bytes | GRPCError], None]
Ask = Callable[[bytes, str, Reply], None]
"""Answer a request, as it came, of a client with this API key; never raises."""


class _Call:
    """A call, in the place of grpclib's buffer of its stream: it is told what comes."""

    def __init__(self, handler: "HotHandler", stream: Any, release: Callable[[], None], secret: str) -> None:
        self._handler, self._stream, self.release, self._secret = handler, stream, release, secret
        self._body, self._unacked = bytearray(), 0
        self._done = False
        self._sending: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def add(self, data: bytes, ack_size: int) -> None:
        self._body += data
        self._unacked += ack_size
        if len(self._body) > LATER:
            self._stream.connection.ack(self._stream.id, self.unacked_size())
        if len(self._body) > MAX_MESSAGE + PREFIX_BYTES:
            self._body.clear()
            self.reply(too_large())

    def unacked_size(self) -> int:
        unacked, self._unacked = self._unacked, 0
        return unacked

    def eof(self) -> None:
        """Ask, as the request has come."""
        if self._done:
            return
        try:
            body = only_message(self._body)
        except GRPCError as error:
            self.reply(error)
        else:
            self._handler.ask(body, self._secret, self.reply)

    def late(self) -> None:
        self.reply(GRPCError(Status.DEADLINE_EXCEEDED, ""))

    def reply(self, answer: bytes | GRPCError) -> None:
        """Send the message of an answer, or a refusal; to nobody where the client has gone."""
        if self._done:
            return
        self._done = True
        if self.timer is not None:
            self.timer.cancel()
        stream, h2 = self._stream, self._stream._h2_connection
        if not stream.closable:
            self.release()
            return
        if isinstance(answer, GRPCError):
            message = ("grpc-message", encode_grpc_message(answer.message or ""))
            h2.send_headers(stream.id, [*HEADERS, ("grpc-status", str(answer.status.value)), message], end_stream=True)
            if stream.closable:  # the client has more to say
                stream.reset_nowait()
        else:
            frame = framed(answer)
            room = min(h2.local_flow_control_window(stream.id), h2.max_outbound_frame_size)
            h2.send_headers(stream.id, HEADERS)
            if len(frame) > room or not stream.connection.write_ready.is_set():
                self._sending = asyncio.get_running_loop().create_task(self._send_slowly(frame))
                return
            h2.send_data(stream.id, frame)
            h2.send_headers(stream.id, OK, end_stream=True)
        stream.connection.flush()
        self.release()

    async def _send_slowly(self, frame: bytes) -> None:
        """Send as much at a time as the client takes."""
        try:
            await self._stream.send_data(frame)
            await self._stream.send_headers(OK, end_stream=True)
        except ProtocolError:
            pass  # it has gone
        finally:
            self.release()

    def give_up(self) -> None:
        """Answer no more: nobody listens."""
        self._done = True
        if self.timer is not None:
            self.timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
        self.release()


class HotHandler(Handler):
    """grpclib's handler with a short way for recommendations."""

    __gc_interval__ = 100
    ask: Ask

    def __init__(self, plain: Handler, ask: Ask) -> None:
        super().__init__(plain.mapping, plain.codec, plain.status_details_codec, plain.dispatch)
        self.ask = ask
        self._calls: dict[Any, _Call] = {}

    def accept(self, stream: Any, headers: list[tuple[str, str]], release_stream: Callable[[], Any]) -> None:
        """Take a plain call; leave the others to the framework."""
        said = dict(headers)
        plain = said.get(":path") == PATH and said.get(":method") == "POST" and said.get("te") == "trailers"
        try:
            deadline = Deadline.from_headers(headers) if plain and "grpc-timeout" in said else None
        except ValueError:
            plain = False
        if not plain or said.get("content-type") not in CONTENT_TYPES:
            super().accept(stream, headers, release_stream)
            return

        def release() -> None:
            if self._calls.pop(stream, None) is not None:
                release_stream()
                stream.buffer = None  # or call and stream would wait for the garbage collector

        call = self._calls[stream] = stream.buffer = _Call(self, stream, release, secret_of(said))
        if deadline is not None:
            call.timer = self.loop.call_later(deadline.time_remaining(), call.late)

    def cancel(self, stream: Any) -> None:
        """The client wants no answer any more."""
        call = self._calls.get(stream)
        if call is None:
            super().cancel(stream)
        else:
            call.give_up()

    def close(self) -> None:
        for call in list(self._calls.values()):
            call.give_up()
        super().close()

    @property
    def is_busy(self) -> bool:
        """Whether calls are under way."""
        return bool(self._calls or any(not task.done() for task in self._tasks.values()))
