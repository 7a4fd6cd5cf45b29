"""`POST /v1/recommend` without the framework's routing, which costs more than the answer's own HTTP.

It is an ASGI application in front of the other one, so the server's protocol (framing,
keep-alive, pipelining, slow and broken clients) is the same; only routing, dependency
injection and response classes are left out. Checks and errors are those of all routes.
"""

from collections.abc import Awaitable, Callable

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api_keys import Guard, Refused
from serving.http_parts import MAX_BODY, refused, says_too_large, secret_of, too_large

PATH = "/v1/recommend"
Answering = Callable[[bytes], Awaitable[bytes | JSONResponse]]


class HotPath:
    """Answers recommendations itself and hands everything else on."""

    def __init__(self, app: ASGIApp, guard: Guard, answer: Answering) -> None:
        """`answer(body)` returns the body of a 200, or an error."""
        self._app, self._guard, self._answer = app, guard, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            self._guard.admit(secret_of(scope), "read")
        except Refused as refusal:
            await refused(refusal)(scope, receive, send)
            return
        if says_too_large(scope):
            await too_large()(scope, receive, send)
            return
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY:
                await too_large()(scope, receive, send)
                return
            parts.append(part)
            if not message.get("more_body", False):
                break
        answer = await self._answer(b"".join(parts))
        if isinstance(answer, JSONResponse):
            await answer(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
