"""Interceptors of every call: API key, request id, status and metrics."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import structlog
from prometheus_client import Counter

from serving.auth.access import Access, access_of_rpc
from serving.auth.api_keys import Guard, secret_in
from serving.engine.calls import RequestFailed
from serving.engine.metrics import SERVER
from serving.grpc.failures import Code, Failure, status_of

SERVICE = "headrace.v1.Headrace"
MAX_METADATA = 16 << 10
"""Bytes of a call's metadata, 32 for each entry among them, as HTTP/2 counts (RFC 9113, section 6.5.2)."""
REQUEST_ID = "x-request-id"
MAX_REQUEST_ID = 128
CALLS = Counter("headrace_grpc_calls", "Calls over gRPC", ["method", "code"], registry=SERVER)

Context = Any
"""`grpc.aio.ServicerContext`; the package has no types."""
Behaviour = Callable[[Any, Context], Awaitable[Any]]

SECRET = ContextVar[str]("secret")
"""The API key of the call that is being handled, which pays for what the call asks for."""

log = structlog.get_logger()


def secret_of(metadata: dict[str, Any]) -> str:
    """Return the API key that comes with a call, "" without one."""
    return secret_in(str(metadata.get("x-api-key", "")), str(metadata.get("authorization", "")))


def _request_id(metadata: dict[str, Any]) -> str:
    """Return the id that the caller gives the call, else a new one."""
    given = metadata.get(REQUEST_ID, "")
    fits = 0 < len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable()
    return given if fits else os.urandom(8).hex()


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Admits calls by the table of access, and ends them with a status; health and reflection are open to all."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._handlers = dict[str, Any]()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return what handles a call, None for an unknown method."""
        found = self._handlers.get(details.method)
        if found is None:
            found = await continuation(details)
            access = access_of_rpc(details.method)
            if found is not None and access.scopes:
                found = self._around(found, details.method.rpartition("/")[2], access)
                self._handlers[details.method] = found
        return found

    def _around(self, handler: Any, method: str, access: Access) -> Any:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._call(handler.stream_stream, method, access))
        return grpc.stream_unary_rpc_method_handler(self._call(handler.stream_unary, method, access))

    def _call(self, behaviour: Behaviour, method: str, access: Access) -> Behaviour:
        answered, cancelled = (CALLS.labels(method, code.name) for code in (Code.OK, Code.CANCELLED))

        async def call(messages: Any, context: Context) -> Any:
            given = context.invocation_metadata()
            metadata = dict(given)
            request_id = _request_id(metadata)
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            try:
                # grpc's own limit binds a client only after that has confirmed the settings.
                if sum(len(name) + len(value) + 32 for name, value in given) > MAX_METADATA:
                    raise Failure(Code.RESOURCE_EXHAUSTED, f"more than {MAX_METADATA} bytes of metadata")
                secret = secret_of(metadata)
                self._guard.admit(secret, *access)
                SECRET.set(secret)
                answer = await behaviour(messages, context)
            except (asyncio.CancelledError, grpc.aio.BaseError):  # the client has gone, or its deadline has passed
                cancelled.inc()
                raise
            except Exception as error:
                if isinstance(error, RequestFailed):  # logged by an id that the caller does not know
                    log.error("a call was not answered", method=method, request_id=request_id, failed=error.request_id)
                code, message, trailers = status_of(error, request_id)
                CALLS.labels(method, code.name).inc()
                await context.abort(code, message, ((REQUEST_ID, request_id), *trailers))
            answered.inc()
            return answer

        return call
