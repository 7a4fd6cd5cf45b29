"""Middleware that comes before all other: paths as they are matched, HEAD and OPTIONS, and the count of requests."""

from functools import cache
from typing import Annotated
from urllib.parse import quote, unquote, unquote_to_bytes

from fastapi import Path, Response
from prometheus_client import Counter
from pydantic import BeforeValidator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.auth.access import methods_of, template_of
from serving.engine.metrics import SERVER
from serving.http.errors import error

REQUESTS = Counter("headrace_http_requests", "HTTP requests by route and status", ["route", "status"], registry=SERVER)
WITH_IDS = ("/v1/items/", "/v1/users/")
"""Below these paths a segment is an id, which may hold slashes."""
PathId = Annotated[
    str, BeforeValidator(unquote), Path(min_length=1, max_length=256, description="Id", examples=["tea"])
]
"""An id in a path, as `path_with_ids` leaves it."""


@cache
def requests_of(route: str, status: int) -> Counter:
    """Return the counter of a route and a status; looking labels up costs more than counting."""
    return REQUESTS.labels(route or "unknown", str(status))


def path_with_ids(raw: bytes, path: str) -> str:
    """Return the path to be matched, in which `/` and `%` of ids stay as they were sent: `%2F` and `%25`.

    >>> path_with_ids(b"/v1/items/CANON%2F4L/similar", "/v1/items/CANON/4L/similar")
    '/v1/items/CANON%2F4L/similar'
    """
    if not path.startswith(WITH_IDS):
        return path
    segments = [unquote_to_bytes(segment).decode(errors="replace") for segment in raw.split(b"/")]
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


class Routes:
    """Answers OPTIONS, turns HEAD into GET, and counts every request by its route and the status of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_with_ids(scope.get("raw_path") or quote(scope["path"]).encode(), scope["path"])
        route = template_of(path)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                requests_of(route, message["status"]).inc()
            await send(message)

        answer = _by_method(scope["method"], path)
        if answer is not None:
            await answer(scope, receive, counted)
            return
        # What serves the connection leaves the body of an answer to HEAD out, by the scope that it made itself.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            await self._app({**scope, "path": path, "method": method}, receive, counted)
        except Exception:  # answered further out
            requests_of(route, 500).inc()
            raise


def _by_method(method: str, path: str) -> Response | None:
    """Return the answer to a request that no route takes, for its method alone; None for all others."""
    allowed = methods_of(path)
    if not allowed or method not in ("OPTIONS", "HEAD") or (method == "HEAD" and "GET" in allowed):
        return None
    named = ", ".join((*allowed, *(["HEAD"] if "GET" in allowed else []), "OPTIONS"))
    if method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": named})
    return error(405, "", "Method Not Allowed", Allow=named)
