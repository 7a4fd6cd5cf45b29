"""The gRPC server: grpcio's, on the event loop of the process, with health, reflection, TLS, limits and a clean end."""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.grpc.failures import Code
from serving.grpc.interceptors import MAX_METADATA
from serving.grpc.streams import OpenStreams
from serving.settings import ServingSettings
from state.settings import PREFIX, BadSettings

MAX_MESSAGE = 4 << 20
"""Bytes of a request, packed or not."""
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    # A call counts for a while after its last frame, so less refuses clients that have 64 under way.
    ("grpc.max_concurrent_streams", 1000),
    # Calls that were reset wait here too until their turn comes; past the first mark others would be cancelled.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # The limit of metadata holds from the moment the client confirms our settings.
    ("grpc.http2.settings_timeout", 5_000),
    # A client that has gone without a word is found by pings, with calls under way and without.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Whoever reads nothing keeps its answers waiting no longer than this; and clients find servers that are new.
    ("grpc.max_connection_idle_ms", 30 * 60_000),
    ("grpc.max_connection_age_ms", 60 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""The messages are those of v1alpha, for which alone grpcio-reflection has a service."""
LAST_WORD_S = 0.05
"""What writing to those who watch the health may take."""
log = structlog.get_logger()


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """grpcio's health service, whose watches end when the server does."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:
        watch = asyncio.create_task(super().Watch(request, context))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([watch, stopping], return_when=asyncio.FIRST_COMPLETED)
            if watch.done():  # the client has gone
                await watch
            await context.abort(Code.UNAVAILABLE, "the server stops")
        finally:
            watch.cancel()
            stopping.cancel()

    async def stop(self) -> None:
        """Report NOT_SERVING to all watchers, and end their calls."""
        await self.enter_graceful_shutdown()
        await asyncio.sleep(LAST_WORD_S)
        self._stopping.set()


class GrpcServer:
    """A server that ends calls under way before it stops."""

    def __init__(
        self, service: str, handlers: Mapping[str, Any], interceptors: Sequence[Any], streams: OpenStreams
    ) -> None:
        """`streams` are those of the handlers' calls that may stay open for ever."""
        self._service, self._handlers, self._interceptors = service, handlers, interceptors
        self._streams = streams
        self._health = _Health()
        self._server: Any = None

    async def listen(self, settings: ServingSettings) -> None:
        """Begin to take calls. Raises BadSettings."""
        host, port, credentials = settings.http_host, settings.grpc_port, tls(settings)
        _can_be_had(host, port, settings.reuse_port)
        options = (*OPTIONS, ("grpc.so_reuseport", int(settings.reuse_port)))
        server = self._server = grpc.aio.server(options=options, interceptors=self._interceptors)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self._service, self._handlers),))
        names = (self._service, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
        for name in ("", self._service):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        _add_reflection(names, server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise BadSettings(f"{PREFIX}GRPC_PORT: port {port} of {host} cannot be had: {error}") from None
        await server.start()
        log.info("gRPC listens", port=bound, tls=credentials is not None)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let those under way end for a while, then end them."""
        if self._server is None:
            return
        await self._health.stop()
        stopping = asyncio.create_task(self._server.stop(grace_s))
        await asyncio.sleep(0)  # no new calls from here on
        self._streams.stop()
        await stopping


def _add_reflection(names: Sequence[str], server: Any) -> None:
    """Add reflection, which lists the server's services, in both of its versions."""
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(REFLECTION_V1, handlers),))


def _can_be_had(host: str, port: int, shared: bool) -> None:
    """Raise BadSettings, with the system's reason, unless the port can be listened on; grpcio gives none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            trial.bind(address)
    except OSError as error:
        raise BadSettings(f"{PREFIX}GRPC_PORT: port {port} of {host} cannot be had: {error.strerror}") from None


def tls(settings: ServingSettings) -> Any:
    """Return the credentials that connections are secured by, None without a certificate. Raises BadSettings."""
    if settings.grpc_certificate is None:
        if settings.grpc_private_key is not None or settings.grpc_client_ca is not None:
            raise BadSettings(f"{PREFIX}GRPC_CERTIFICATE is needed with {PREFIX}GRPC_PRIVATE_KEY and _CLIENT_CA")
        return None
    if settings.grpc_private_key is None:
        raise BadSettings(f"{PREFIX}GRPC_PRIVATE_KEY is needed with {PREFIX}GRPC_CERTIFICATE")
    chain = _read("certificate", settings.grpc_certificate)
    key = _read("private_key", settings.grpc_private_key)
    authority = None if settings.grpc_client_ca is None else _read("client_ca", settings.grpc_client_ca)
    _are_fit(settings)
    return grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=authority is not None)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{PREFIX}GRPC_{name.upper()}: {path}: {error.strerror}") from None


def _are_fit(settings: ServingSettings) -> None:
    """Raise BadSettings that names the file that is none; grpcio would only say that the port cannot be had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key, authority = settings.grpc_certificate, settings.grpc_private_key, settings.grpc_client_ca
    assert chain is not None
    try:
        context.load_cert_chain(chain, key, password="")  # a question for one would wait for ever
    except ssl.SSLError as error:
        raise BadSettings(
            f"{PREFIX}GRPC_CERTIFICATE, {PREFIX}GRPC_PRIVATE_KEY: {chain} and {key} are no certificate chain and its "
            f"key in PEM, without a password ({error.reason or error})"
        ) from None
    try:
        if authority is not None:
            context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise BadSettings(
            f"{PREFIX}GRPC_CLIENT_CA: {authority} holds no certificates in PEM ({error.reason or error})"
        ) from None
