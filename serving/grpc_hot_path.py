"""`Recommend` and `RecommendStream` without tasks, metadata and events, which cost more than all else of a call.

It is grpclib's handler of a connection (framing, flow control, resets stay as they are) that takes calls of these two
methods itself and hands all others on to grpclib; so it does with those whose headers are wrong, of which grpclib says
what is.
"""

from collections.abc import Callable
from typing import Any, Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from grpclib.server import Handler

from serving.grpc_calls import SERVICE, secret_of
from serving.grpc_hot_call import HotCall, HotStream, Reply

KINDS: dict[str, type[HotCall] | type[HotStream]] = {
    f"/{SERVICE}/Recommend": HotCall,
    f"/{SERVICE}/RecommendStream": HotStream,
}
CONTENT_TYPES = ("application/grpc", "application/grpc+proto", "application/grpc+")


class Answering(Protocol):
    """What answers the calls."""

    def admit(self, secret: str) -> None:
        """Raise GRPCError unless this is the API key of a client that may read."""

    def answer(self, body: bytes, reply: Reply) -> None:
        """Have `reply` called with the answer to a request, as it came, or why there is none; never raises."""


class HotHandler(Handler):
    """grpclib's handler with a short way for recommendations."""

    __gc_interval__ = 100

    def __init__(self, plain: Handler, answering: Answering) -> None:
        super().__init__(plain.mapping, plain.codec, plain.status_details_codec, plain.dispatch)
        self._answering = answering
        self._calls: dict[Any, HotCall | HotStream] = {}

    def accept(self, stream: Any, headers: list[tuple[str, str]], release_stream: Callable[[], Any]) -> None:
        """Take a call of one of the two methods; leave the others to the framework."""
        said = dict(headers)
        kind = KINDS.get(said.get(":path", ""))
        plain = said.get(":method") == "POST" and said.get("te") == "trailers"
        if kind is None or not plain or said.get("content-type") not in CONTENT_TYPES:
            super().accept(stream, headers, release_stream)
            return

        def release() -> None:
            if self._calls.pop(stream, None) is not None:
                release_stream()
                stream.buffer = None  # or call and stream would wait for the garbage collector

        call = self._calls[stream] = stream.buffer = kind(stream, release, self._answering.answer)
        try:
            self._answering.admit(secret_of(said))
            deadline = Deadline.from_headers(headers) if "grpc-timeout" in said else None
        except GRPCError as refusal:
            call.end(refusal)
        except ValueError:
            call.end(GRPCError(Status.INVALID_ARGUMENT, "grpc-timeout: is none"))
        else:
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

    def end_idle_streams(self) -> None:
        """End the streams on which nothing is under way, which their clients may keep open for ever."""
        for call in list(self._calls.values()):
            if isinstance(call, HotStream) and call.is_idle:
                call.end(GRPCError(Status.UNAVAILABLE, "the server stops"))

    @property
    def is_busy(self) -> bool:
        """Whether calls are under way."""
        return bool(self._calls or any(not task.done() for task in self._tasks.values()))
