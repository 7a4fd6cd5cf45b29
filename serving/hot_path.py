"""POST of what is asked most, without task, scope and routing, which cost more than everything else of HTTP together.

It is uvicorn's own protocol class (framing, keep-alive, pipelining, time limits, slow and broken clients stay as
they are) that takes plain requests for a few paths itself and hands all others on: to the routes of the same
names where anything about a request is special, so both answer alike.

A client says the same in the head of one request after the other. What comes between two messages, begins with a
head that this connection's parser has read before as a plain request's, and is as long as that one was, is the same
request with another body: it need not be parsed again.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api_keys import Guard, Refused
from serving.http_parts import MAX_BODY, refused, secret_of

OK = b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
CLOSE = b"connection: close\r\n"
HEAD_END = b"\r\n\r\n"
MAX_HEADS = 16
"""Heads a connection remembers: they differ by the length of the body."""

Reply = Callable[[bytes | Response], None]
Ask = Callable[[bytes, Reply], None]
"""Have the second called with the JSON of the answer to a body, or with another response."""


class _Cycle:
    """One request and its answer, as far as uvicorn's protocol needs to know of them."""

    def __init__(self, protocol: "HotProtocol", ask: Ask, keep_alive: bool) -> None:
        self._protocol, self.ask, self.keep_alive = protocol, ask, keep_alive
        self.body = bytearray()
        self.more_body, self.response_complete, self.disconnected = True, False, False
        self.asked = False

    @property
    def message_event(self) -> "_Cycle":  # no attribute: a circle of references waits for the garbage collector
        return self

    def set(self) -> None:
        """Ask as soon as the body is there; uvicorn calls this for every part of it and when the client is gone."""
        if not (self.more_body or self.disconnected or self.response_complete or self.asked):
            self.asked = True
            body = bytes(self.body)
            self._protocol.remember(self, body)
            self.ask(body, self.reply)

    def reply(self, answer: bytes | Response) -> None:
        """Send the JSON of a 200, or another response; to nobody where the client has gone."""
        protocol = self._protocol
        if self.response_complete or self.disconnected or protocol.transport.is_closing():
            return
        self.response_complete = True
        end = b"" if self.keep_alive else CLOSE
        if isinstance(answer, bytes):
            protocol.transport.write(OK % (protocol.default_headers(), len(answer), end, answer))
        else:
            status = b"HTTP/1.1 %d %b\r\n" % (answer.status_code, HTTPStatus(answer.status_code).phrase.encode())
            lines = [b"%b: %b\r\n" % line for line in answer.raw_headers]
            body = bytes(answer.body)
            protocol.transport.write(b"".join((status, protocol.default_headers(), *lines, end, b"\r\n", body)))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a short way for some paths."""

    _lines: tuple[Any, bytes] = ([], b"")

    def __init__(self, asks: Mapping[bytes, Ask], guard: Guard, **of_uvicorn: Any) -> None:
        """`asks`: by path, for those who may read."""
        super().__init__(**of_uvicorn)
        self._asks, self._guard = asks, guard
        self._within = False
        """Whether the parser waits for the rest of a message."""
        self._fed = b"", b""
        self._heads: dict[bytes, tuple[int, str, Ask]] = {}
        """Of heads: how long the body is, the API key, and who is asked."""

    def default_headers(self) -> bytes:
        """Return the lines all responses have; uvicorn makes them anew every second."""
        headers = self.server_state.default_headers
        if HotProtocol._lines[0] is not headers:
            HotProtocol._lines = headers, b"".join(b"%b: %b\r\n" % line for line in headers)
        return HotProtocol._lines[1]

    def data_received(self, data: bytes) -> None:
        """Take a request whose head is known; have others parsed."""
        head, body = b"", b""
        if not self._within:
            end = data.find(HEAD_END) + len(HEAD_END)
            head, body = data[:end], data[end:]
        known = self._heads.get(head)
        if known is not None and len(body) == known[0] and not self._is_busy():
            self._unset_keepalive_if_required()
            self._take(known[2], True, known[1], body)
        else:
            self._fed = head, body
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._within = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._within = bool(self.parser.should_upgrade())  # then what follows is none of HTTP's messages
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Take a plain request; leave the others to the framework."""
        ask = self._asks.get(self.url)
        if ask is None or not self._is_plain():
            super().on_headers_complete()
            return
        self._take(ask, self.parser.should_keep_alive(), secret_of(self.headers))

    def remember(self, cycle: _Cycle, body: bytes) -> None:
        """Know the head of the request in work from now on, if it and its body were all that has just come."""
        if cycle.keep_alive and body == self._fed[1] and self._fed[0] and len(self._heads) < MAX_HEADS:
            self._heads[self._fed[0]] = len(body), secret_of(self.headers), cycle.ask

    def _take(self, ask: Ask, keep_alive: bool, secret: str, body: bytes | None = None) -> None:
        """Begin to answer; the body comes later where it is None."""
        cycle: Any = _Cycle(self, ask, keep_alive)
        self.cycle = cycle
        try:
            self._guard.admit(secret, "read")
        except Refused as refusal:
            cycle.reply(refused(refusal))
            return
        if body is not None:
            cycle.asked = True
            ask(body, cycle.reply)

    def _is_busy(self) -> bool:
        """Say whether an answer is under way, or the client does not read."""
        return self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)

    def _is_plain(self) -> bool:
        """Say whether nothing else is under way, and a body of known and permitted length follows."""
        if self._is_busy() or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name in (b"transfer-encoding", b"upgrade"):
                return False
        return length.isdigit() and int(length) <= MAX_BODY and self.parser.get_http_version() == "1.1"
