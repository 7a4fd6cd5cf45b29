"""POST of the most frequent calls, without task, scope and routing: these cost more than the rest of HTTP together.

It is uvicorn's own protocol class (framing, keep-alive, pipelining, time limits, slow and broken clients stay as
they are) that takes plain requests for a few paths itself and hands all others on: to the routes of the same
names where anything about a request is special, so both answer alike. Every request is parsed by uvicorn's parser.
"""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httptools
from fastapi import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.auth.api_keys import Guard, Refused, secret_of
from serving.http.bodies import MAX_BODY, is_json
from serving.http.errors import error, refused
from serving.http.routes import requests_of

OK = b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
CLOSE = b"connection: close\r\n"
PLAIN = b"application/json"
LEFT = (b"transfer-encoding", b"content-encoding")
"""Headers of bodies that the framework reads."""
MOST_HEAD, MOST_BYTES = 1 << 16, 8 * MAX_BODY
"""Of a request that comes in pieces; a body in small chunks takes more bytes than it has."""
READ_S = 20.0
"""A request that is not whole after so long ends its connection, as does a connection without a first one."""
OF_UPGRADES = (b"upgrade", b"http2-settings")

Reply = Callable[[bytes | Response], None]
Handler = Callable[[bytes, str, Reply], None]
"""Called in the loop with the body of a request, the API key that pays for it, and whom to give the reply.

It may not block or raise: the reply is called once, now or later, with the JSON of an answer or another response.
"""


class _Cycle:
    """One request and its answer, with the attributes that uvicorn's protocol reads."""

    def __init__(self, protocol: "FastProtocol", handle: Handler, secret: str, keep_alive: bool) -> None:
        self._protocol, self.handle, self.secret, self.keep_alive = protocol, handle, secret, keep_alive
        self._path = protocol.url.decode()
        self.body = bytearray()
        self.more_body, self.response_complete, self.disconnected = True, False, False
        self.handled = False

    @property
    def message_event(self) -> "_Cycle":  # no attribute: a circle of references waits for the garbage collector
        return self

    def set(self) -> None:
        """Handle the request when the body is whole; uvicorn calls this for each part, and when the client is gone."""
        if self.more_body:
            self._protocol.flow.resume_reading()  # uvicorn paused a long body; this one is bounded by its head
        if not (self.more_body or self.disconnected or self.response_complete or self.handled):
            self.handled = True
            self.handle(bytes(self.body), self.secret, self.reply)

    def reply(self, answer: bytes | Response) -> None:
        """Send the JSON of a 200, or another response; to nobody where the client has gone."""
        protocol = self._protocol
        if self.response_complete or self.disconnected or protocol.transport.is_closing():
            return
        self.response_complete = True
        requests_of(self._path, 200 if isinstance(answer, bytes) else answer.status_code).inc()
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


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a short way for some paths."""

    _lines: tuple[Any, bytes] = ([], b"")
    _giving_up: asyncio.TimerHandle | None

    def __init__(self, handlers: Mapping[bytes, Handler], guard: Guard, pages: bool, **of_uvicorn: Any) -> None:
        """`handlers`: by path, for those who have the scope `recommend`; `pages`: whether sites' pages may call."""
        super().__init__(**of_uvicorn)
        self._handlers, self._guard, self._pages = handlers, guard, pages
        self._is_whole, self._has_head, self._n_bytes, self._giving_up = True, False, 0, None

    def default_headers(self) -> bytes:
        """Return the lines all responses have; uvicorn makes them anew every second."""
        headers = self.server_state.default_headers
        if FastProtocol._lines[0] is not headers:
            FastProtocol._lines = headers, b"".join(b"%b: %b\r\n" % line for line in headers)
        return FastProtocol._lines[1]

    def connection_made(self, transport: Any) -> None:
        """Give the client READ_S for its first request."""
        super().connection_made(transport)
        self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._rest_came()
        super().connection_lost(exc)

    def _await_rest(self) -> None:
        if self._giving_up is None:
            self._giving_up = self.loop.call_later(READ_S, self.transport.close)

    def _rest_came(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def data_received(self, data: bytes) -> None:
        """Read requests; one that offers to upgrade is read as if it did not (RFC 9110, section 7.8)."""
        self._read(data)
        if self._is_whole:
            self._rest_came()
            return
        self._await_rest()
        self._n_bytes += len(data)
        if self._n_bytes > (MOST_BYTES if self._has_head else MOST_HEAD) and not self.transport.is_closing():
            self._refuse_head() if not self._has_head else self.transport.close()

    def _read(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("CONNECT is not supported.")
                    break
                # The parser took the head and nothing else, for what follows would be another protocol's.
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                break

    def _refuse_head(self) -> None:
        answer = error(431, "", f"the head of a request has at most {MOST_HEAD} bytes", Connection="close")
        lines = b"".join(b"%b: %b\r\n" % line for line in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + lines + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def _head_without_upgrade(self) -> bytes:
        """Return the head that the parser has just read, as a request that offers nothing."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name not in OF_UPGRADES]
        return b"".join((self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n", *lines, b"\r\n"))

    def on_message_begin(self) -> None:
        """Note that a request is under way."""
        self._is_whole = self._has_head = False
        self._n_bytes = 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Leave a message whose head is read once more to that reading."""
        self._is_whole = True
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Take a plain request; leave the others to the framework."""
        self._has_head = True
        if self.parser.should_upgrade():  # it comes again without
            return
        handle = self._handlers.get(self.url)
        if handle is None or not self._is_plain():
            super().on_headers_complete()
            return
        secret = secret_of(self.headers)
        cycle: Any = _Cycle(self, handle, secret, self.parser.should_keep_alive())
        self.cycle = cycle
        try:
            self._guard.admit(secret, "recommend", 0)  # before the body is there; what it costs is paid then
        except Refused as refusal:
            cycle.reply(refused(refusal))

    def _is_busy(self) -> bool:
        """Return whether an answer is under way, or the client does not read."""
        return self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)

    def _is_plain(self) -> bool:
        """Return whether nothing else is under way, and a body of known and permitted length follows."""
        if self._is_busy() or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        length = kind = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"content-type":
                kind = value
            elif name in LEFT or (name == b"origin" and (self._pages or self._guard.is_open)):  # a web page's
                return False
        if not (length.isdigit() and int(length) <= MAX_BODY and self.parser.get_http_version() == "1.1"):
            return False
        return kind == PLAIN or length == b"0" or is_json(kind.decode("latin-1"))
