"""A gRPC server that many may call: grpclib's, which writes once a turn, ends calls before it stops, and knows TLS.

HTTP/2 is nghttp2's where the system has it, else h2's, which is Python and takes three times as long for a call.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any, cast

import structlog
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.server import Server
from hyperframe.frame import GoAwayFrame

from serving.grpc_calls import Codec
from serving.grpc_hot_path import Answering, HotHandler
from serving.http2 import Http2Connection
from serving.nghttp2 import library
from state.settings import PREFIX, BadSettings, Settings

LOOK_S = 0.02
log = structlog.get_logger()
GO_AWAY: bytes = GoAwayFrame(0, last_stream_id=2**31 - 1).serialize()
"""Asks a client for no further calls on a connection (RFC 9113, section 6.8)."""


class _Corked:
    """A transport that writes once a turn of the loop: the headers, answers and trailers of all calls together."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._waiting = transport, list[bytes]()
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and not self._transport.is_closing():
            self._transport.write(b"".join(waiting))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str) -> Any:
        return self._transport.get_extra_info(name)


class _Protocol(H2Protocol):
    """grpclib's protocol over a corked transport; `connections` holds those that are open."""

    def __init__(self, plain: H2Protocol, handler: HotHandler, connections: set["_Protocol"]) -> None:
        super().__init__(handler, plain.config, plain.h2_config)
        self._connections = connections
        self._http2: Http2Connection | None = None

    def connection_made(self, transport: Any) -> None:
        corked: Any = _Corked(transport)
        if library() is None:
            super().connection_made(corked)
        else:
            config = self.config
            self._http2 = Http2Connection(config.http2_connection_window_size, config.http2_stream_window_size)
            self.connection = Connection(self._http2, corked, config=config)  # type: ignore[arg-type]
            self.connection.flush()
            self.processor = EventsProcessor(self.handler, self.connection)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._http2 is not None and self._http2.ended:
            self.processor.close("The client broke the rules of HTTP/2")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    def ask_to_go(self) -> None:
        """Ask the client for no further calls; those under way end as always."""
        if not self.connection.is_closing():
            self.connection._transport.write(GO_AWAY)


class GrpcServer(Server):
    """A server that ends calls under way before it stops."""

    def __init__(self, services: list[Any], answering: Answering) -> None:
        """`answering` answers single requests and streams of them; all other methods are those of the services."""
        super().__init__(services, codec=Codec())
        self._connections, self._answering = set[_Protocol](), answering

    async def listen(self, settings: Settings) -> None:
        """Begin to take calls. Raises BadSettings."""
        host, port = settings.http_host, settings.grpc_port
        try:
            await self.start(host, port, ssl=tls(settings), reuse_port=settings.reuse_port)
        except OSError as error:
            raise BadSettings(f"{PREFIX}GRPC_PORT: port {port} of {host} cannot be had: {error.strerror}") from None
        log.info("gRPC listens", port=port, http2="h2" if library() is None else "nghttp2")

    def _protocol_factory(self) -> H2Protocol:
        plain: Any = super()._protocol_factory()
        handler = HotHandler(plain.handler, self._answering)
        self._handlers.remove(plain.handler)
        self._handlers.add(handler)
        return _Protocol(plain, handler, self._connections)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let those under way end for a while, then end them."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.ask_to_go()
        deadline, handlers = self._loop.time() + grace_s, cast(set[HotHandler], self._handlers)
        while any(one.is_busy for one in handlers) and self._loop.time() < deadline:
            await asyncio.sleep(LOOK_S)
            for handler in handlers:
                handler.end_idle_streams()
        for connection in list(self._connections):
            connection.connection.close()  # what was answered last is written first
        self.close()
        await self.wait_closed()


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Return what connections are secured by, None without a certificate. Raises BadSettings."""
    if settings.grpc_certificate is None:
        return None
    if settings.grpc_private_key is None:
        raise BadSettings(f"{PREFIX}GRPC_PRIVATE_KEY is needed with {PREFIX}GRPC_CERTIFICATE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    for name in ("certificate", "private_key", "client_ca"):
        _can_be_read(name, getattr(settings, f"grpc_{name}"))
    try:
        context.load_cert_chain(settings.grpc_certificate, settings.grpc_private_key)
        if settings.grpc_client_ca is not None:
            context.load_verify_locations(settings.grpc_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise BadSettings(f"{PREFIX}GRPC_CERTIFICATE, _PRIVATE_KEY, _CLIENT_CA: {error}") from None
    return context


def _can_be_read(name: str, path: Path | None) -> None:
    try:
        if path is not None:
            path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{PREFIX}GRPC_{name.upper()}: {path}: {error.strerror}") from None
