"""Access control of all HTTP routes, and what becomes of errors."""

from collections.abc import Container, Iterable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.books import BookConflict, BookTooLarge
from flows.log.contract import LogUnavailable
from schemas.registry import RegistryUnavailable
from serving.auth.access import Scope as KeyScope
from serving.auth.access import access_of, event_scope
from serving.auth.api_keys import Guard, Refused, secret_of
from serving.engine.calls import failed
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest
from serving.http.errors import BUSY, error, json, readable, refused
from serving.request.requests import message_of
from serving.rules.book_errors import BadBook
from serving.settings import is_loopback
from state.store.contract import Fenced, StoreUnavailable


def is_from_elsewhere(headers: Iterable[tuple[bytes, bytes]], allowed: Container[str] = ()) -> bool:
    """Return whether a web page of another site makes the request, or one under a name that was bent to this machine.

    Browsers send such requests to loopback, with `Origin`, or with the other site's name as `Host`, which has a dot.
    `allowed`: origins of sites whose pages may.
    """
    for name, value in headers:
        if name in (b"origin", b"host"):
            text = value.decode("latin-1")
            if name == b"origin" and text in allowed:
                continue
            try:
                host = urlsplit(text if name == b"origin" else f"//{text}").hostname or ""
            except ValueError:
                return True
            if not is_loopback(host) and (name == b"origin" or "." in host):
                return True
    return False


class CheckKey:
    """Asks the guard before a request reaches its route."""

    def __init__(self, app: ASGIApp, guard: Guard, origins: Container[str]) -> None:
        """`origins` of sites whose pages may make requests where the server is open to its own machine only."""
        self._app, self._guard, self._origins = app, guard, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401, 403 or 429 as the guard decides."""
        if scope["type"] == "websocket":  # there is none, and no handshake asks for a key
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            needed = access_of(scope["method"], scope["path"])
            try:
                if needed.scopes:
                    secret = secret_of(scope["headers"])
                    if self._guard.is_open and not secret and is_from_elsewhere(scope["headers"], self._origins):
                        raise Refused(403, "a server without API keys is open to programs of its own machine only")
                    self._guard.admit(secret, *needed)
            except Refused as refusal:
                await refused(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def check_events(guard: Guard, request: Request, events: list[Any]) -> None:
    """Raise Refused, naming the first event that the caller may not send: none of the call is taken then."""
    first_of: dict[KeyScope, int] = {}
    for index, event in enumerate(events):
        first_of.setdefault(event_scope(event), index)
    for scope, index in first_of.items():
        try:
            guard.admit(secret_of(request.headers.raw), scope, 0)
        except Refused as refusal:
            raise Refused(refusal.status, refusal.message, f"[{index}].type") from None


def add_error_handlers(app: FastAPI) -> None:
    """Answer everything that can go wrong in the one form, and never with a stack trace."""

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, wrong: RequestValidationError) -> JSONResponse:
        first = wrong.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return error(422, field or "body", message_of(first))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, wrong: HTTPException) -> JSONResponse:
        return error(wrong.status_code, "", str(wrong.detail), **(wrong.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, wrong: ClientDisconnect) -> JSONResponse:
        return error(400, "body", "the client went away")

    @app.exception_handler(Refused)
    async def may_not(request: Request, wrong: Refused) -> JSONResponse:
        return refused(wrong)

    @app.exception_handler(BadRequest)
    async def bad(request: Request, wrong: BadRequest) -> JSONResponse:
        return error(422, wrong.field, wrong.message)

    @app.exception_handler(BadBook)
    async def bad_book(request: Request, wrong: BadBook) -> Response:
        all_of = [{**one._asdict(), "message": readable(one.message)} for one in wrong.errors]
        first = {"field": readable(wrong.field), "message": readable(wrong.message)}
        return json({"error": first, "errors": all_of}, 422)

    @app.exception_handler(BookConflict)
    async def conflict(request: Request, wrong: BookConflict) -> Response:
        return json({"error": {"field": "based_on", "message": str(wrong)}, "version": wrong.live}, 409)

    @app.exception_handler(BookTooLarge)
    async def book_too_large(request: Request, wrong: BookTooLarge) -> JSONResponse:
        return error(413, "book", str(wrong))

    @app.exception_handler(LogUnavailable)
    @app.exception_handler(RegistryUnavailable)
    async def log_away(request: Request, wrong: Exception) -> JSONResponse:
        return error(503, "", f"the log is out of reach: {wrong}", **{"Retry-After": "1"})

    @app.exception_handler(Fenced)
    async def fenced(request: Request, wrong: Fenced) -> JSONResponse:
        return error(409, "", "somebody else changed it meanwhile; look again")

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, wrong: Overloaded) -> JSONResponse:
        return error(429, "", str(wrong), **BUSY)

    @app.exception_handler(StoreUnavailable)
    async def away(request: Request, wrong: StoreUnavailable) -> JSONResponse:
        return error(503, "", "the store is out of reach", **BUSY)

    @app.exception_handler(Exception)
    async def broken(request: Request, wrong: Exception) -> JSONResponse:
        return error(500, "", str(failed(wrong, ())))
