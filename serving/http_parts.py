"""What all HTTP routes share: errors, bounds on bodies, and who may do what."""

from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pybreaker import CircuitBreakerError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api_keys import Guard, Refused
from serving.api_keys import Scope as KeyScope
from serving.gather import Overloaded, failed
from serving.rule_book import BadBook
from serving.service import BadRequest
from serving.wire import json_default
from state.store import Fenced, StoreUnavailable

MAX_BODY = 1 << 20


def error(status: int, field: str, message: str, **headers: str) -> JSONResponse:
    """Return an error in the one form all errors have; what of it is no Unicode becomes `?`."""
    said = {"field": _readable(field), "message": _readable(message)}
    return JSONResponse({"error": said}, status, headers or None)


def _readable(text: str) -> str:
    return text.encode(errors="replace").decode()


def json(value: Any, status: int = 200, **headers: str) -> Response:
    """Return any value as JSON."""
    body = orjson.dumps(value, json_default, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers or None, "application/json")


def says_too_large(scope: Scope) -> bool:
    """Say whether the head of a request announces a body larger than MAX_BODY."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return not length.isdigit() or int(length) > MAX_BODY


def too_large() -> JSONResponse:
    """Return the refusal of a large body; what is left of it is not read, so the connection ends."""
    return error(413, "body", f"is larger than {MAX_BODY} bytes", Connection="close")


class BoundBody:
    """Refuses bodies larger than MAX_BODY, by what they say and by what comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if says_too_large(scope):
            await too_large()(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > MAX_BODY:
                raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
            return message

        await self._app(scope, counted, send)


def scope_of(method: str, path: str) -> KeyScope | None:
    """Return the scope a request needs, None where everybody may."""
    if path == "/v1/events":
        return "events"
    if path.startswith("/v1/rules") and method != "GET" and not path.endswith(("/preview", "/lint", "/read")):
        return "admin"
    return "read" if path.startswith(("/v1/", "/graphql")) else None


def secret_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the API key a request brings, "" for none."""
    secret = b""
    for name, value in headers:
        if name == b"x-api-key" or (name == b"authorization" and not secret):
            secret = value.removeprefix(b"Bearer ")
    return str(secret.decode("latin-1"))


def refused(refusal: Refused) -> JSONResponse:
    """Return the answer to somebody who may not."""
    more = {"Retry-After": "1"} if refusal.status == 429 else {}
    return error(refusal.status, "Authorization", refusal.message, **more)


class CheckKey:
    """Asks the guard before a request reaches its route."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (needed := scope_of(scope["method"], scope["path"])) is not None:
            try:
                self._guard.admit(secret_of(scope["headers"]), needed)
            except Refused as refusal:
                await refused(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Answer everything that can go wrong in the one form, and never with a stack trace."""

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, wrong: RequestValidationError) -> JSONResponse:
        first = wrong.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return error(422, field or "body", first["msg"])

    @app.exception_handler(HTTPException)
    async def plain(request: Request, wrong: HTTPException) -> JSONResponse:
        return error(wrong.status_code, "", str(wrong.detail))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, wrong: ClientDisconnect) -> JSONResponse:
        return error(400, "body", "the client went away")

    @app.exception_handler(BadRequest)
    async def bad(request: Request, wrong: BadRequest) -> JSONResponse:
        return error(422, wrong.field, wrong.message)

    @app.exception_handler(BadBook)
    async def bad_book(request: Request, wrong: BadBook) -> JSONResponse:
        return error(422, wrong.field, wrong.message)

    @app.exception_handler(Fenced)
    async def fenced(request: Request, wrong: Fenced) -> JSONResponse:
        return error(409, "", "somebody else changed it meanwhile; look again")

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, wrong: Overloaded) -> JSONResponse:
        return error(429, "", str(wrong), **{"Retry-After": "1"})

    async def away(request: Request, wrong: Exception) -> JSONResponse:
        return error(503, "", "the store is out of reach", **{"Retry-After": "1"})

    app.add_exception_handler(StoreUnavailable, away)
    app.add_exception_handler(CircuitBreakerError, away)

    @app.exception_handler(Exception)
    async def broken(request: Request, wrong: Exception) -> JSONResponse:
        return error(500, "", str(failed(wrong, ())))
