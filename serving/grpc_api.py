"""The gRPC interface: the same service, the same answers."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import ValidationError

from serving.api_keys import Guard, Refused
from serving.gather import Gather, Overloaded
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.requests import MAX_BATCH, MAX_COUNT, Answer, RecommendRequest, first_error
from serving.service import BadRequest, Recommender
from serving.wire import answer_message, batch_message
from state.settings import PREFIX, BadSettings, Settings
from state.store import StoreUnavailable

SERVICE = "headrace.v1.Headrace"
REFUSALS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
SCOPES = ("all", "category", "brand", "country")
MAX_IN_STREAM = 256
"""Requests of a stream under way: a client that sends faster waits."""


def _request(message: Any) -> RecommendRequest:
    """Return the request a message says. Raises ValidationError."""
    given = {field.name: value for field, value in message.ListFields()}
    for name in ("items", "exclude"):
        if name in given:
            given[name] = list(given[name])
    if "experiments" in given:
        given["experiments"] = dict(given["experiments"])
    if "filters" in given:
        filters = {field.name: value for field, value in given["filters"].ListFields()}
        given["filters"] = filters | ({"brands": tuple(filters["brands"])} if "brands" in filters else {})
    return RecommendRequest(**given)


class Servicer(headrace_pb2_grpc.HeadraceServicer):
    """Checks requests as the REST interface does and asks the same recommender."""

    def __init__(self, recommender: Recommender, gather: Gather) -> None:
        self._recommender, self._gather = recommender, gather

    async def Recommend(self, request: Any, context: Any) -> Any:
        return answer_message((await self._answers([(request, "")], context))[0])

    async def RecommendBatch(self, request: Any, context: Any) -> Any:
        if not 1 <= len(request.requests) <= MAX_BATCH:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"requests: must hold 1 to {MAX_BATCH}")
        numbered = [(one, f"requests.{n}.") for n, one in enumerate(request.requests)]
        return batch_message(await self._answers(numbered, context))

    async def RecommendStream(self, requests: Any, context: Any) -> Any:
        waiting: asyncio.Queue[asyncio.Future[Answer | Exception] | BadRequest | Overloaded | None]
        waiting = asyncio.Queue(MAX_IN_STREAM)

        async def take() -> None:
            try:
                async for request in requests:
                    try:
                        begun = self._gather.begin(self._checked(request))
                    except (BadRequest, Overloaded) as error:
                        await waiting.put(error)
                        return
                    await waiting.put(begun)
            finally:
                await waiting.put(None)

        taking = asyncio.ensure_future(take())
        try:
            # Refused here, after the answers of the requests before it: a call that is aborted while an answer
            # of it is being written never ends.
            while (begun := await waiting.get()) is not None:
                if isinstance(begun, (BadRequest, Overloaded)):
                    await self._refuse(begun, context)
                    return
                found = await begun
                if isinstance(found, Exception):
                    raise found
                yield answer_message(found)
            await taking
        finally:
            taking.cancel()

    async def _answers(self, messages: list[tuple[Any, str]], context: Any) -> list[Answer]:
        try:
            return await self._gather.recommend_all([self._checked(one, before) for one, before in messages])
        except (BadRequest, Overloaded) as error:
            await self._refuse(error, context)
            raise

    async def _refuse(self, error: BadRequest | Overloaded, context: Any) -> None:
        if isinstance(error, BadRequest):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{error}; try again in a second")

    def _checked(self, message: Any, before: str = "") -> RecommendRequest:
        """Return the request a message says. Raises BadRequest that names the field, `before` in front of it."""
        try:
            asked = _request(message)
            self._recommender.check(asked)
        except ValidationError as error:
            field, said = first_error(error)
            raise BadRequest(f"{before}{field}", said) from None
        except BadRequest as error:
            raise BadRequest(f"{before}{error.field}", error.message) from None
        return asked

    async def SimilarItems(self, request: Any, context: Any) -> Any:
        if not request.item:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "item: is needed")
        count, lang = await self._common(request, context)
        try:
            return answer_message(self._recommender.similar_items(request.item, count, lang))
        except StoreUnavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is out of reach")

    async def Popular(self, request: Any, context: Any) -> Any:
        scope = request.scope or "all"
        if scope not in SCOPES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"scope: must be one of {', '.join(SCOPES)}")
        if scope != "all" and not request.name:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"name: is needed for scope {scope}")
        count, lang = await self._common(request, context)
        try:
            return answer_message(self._recommender.popular(scope, request.name, count, lang))
        except StoreUnavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is out of reach")

    async def _common(self, request: Any, context: Any) -> tuple[int, str]:
        if request.count > MAX_COUNT:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"count: must be within 1 and {MAX_COUNT}")
        if request.lang not in ("", "en", "de"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "lang: must be en or de")
        return request.count or 20, request.lang or "en"


class _CheckKey(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Asks the guard before a call reaches the service; health and reflection are open."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if not details.method.startswith(f"/{SERVICE}/") or handler is None:
            return handler
        metadata = dict(details.invocation_metadata or ())
        secret = str(metadata.get("x-api-key", "") or metadata.get("authorization", "")).removeprefix("Bearer ")
        try:
            self._guard.admit(secret, "read")
        except Refused as refusal:
            status, message = REFUSALS[refusal.status], refusal.message

            async def refuse(request: Any, context: Any) -> None:
                await context.abort(status, message)

            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(refuse)
            return grpc.unary_unary_rpc_method_handler(refuse)
        return handler


def _handlers(servicer: Servicer) -> Any:
    """Return the handlers of the service's methods. They answer in bytes, so nothing is left to serialise."""
    service = headrace_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
    handlers = {}
    for method in service.methods:
        make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
        reads = message_factory.GetMessageClass(method.input_type).FromString
        handlers[method.name] = make(getattr(servicer, method.name), request_deserializer=reads)
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _pem(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{PREFIX}GRPC_{name}: {path}: {error.strerror}") from None


def _credentials(settings: Settings) -> Any:
    """Return TLS credentials, None without a certificate. Raises BadSettings."""
    if settings.grpc_certificate is None:
        return None
    if settings.grpc_private_key is None:
        raise BadSettings(f"{PREFIX}GRPC_PRIVATE_KEY is needed with {PREFIX}GRPC_CERTIFICATE")
    pair = _pem("PRIVATE_KEY", settings.grpc_private_key), _pem("CERTIFICATE", settings.grpc_certificate)
    ca = _pem("CLIENT_CA", settings.grpc_client_ca) if settings.grpc_client_ca else None
    return grpc.ssl_server_credentials([pair], ca, ca is not None)


def make_server(recommender: Recommender, gather: Gather, address: str, guard: Guard, settings: Settings) -> Any:
    """Return a grpc.aio server bound to `address`, with health and reflection; the caller starts it.

    Raises BadSettings for certificates that cannot be read.
    """
    credentials = _credentials(settings)
    options = [("grpc.so_reuseport", int(settings.reuse_port))]
    server = grpc.aio.server(interceptors=[_CheckKey(guard)], options=options)
    server.add_generic_rpc_handlers((_handlers(Servicer(recommender, gather)),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if credentials is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials)
    return server, checks
