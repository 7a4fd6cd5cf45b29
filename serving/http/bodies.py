"""Middleware of request bodies: their media type, their size, and gzip."""

import zlib
from collections.abc import Iterable

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import error

MAX_BODY = 1 << 20
"""Bytes of a body, as it is sent and decompressed."""
JSON = ("application/json",)
BOOK = (*JSON, "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
BOOKS = "/v1/rules"
"""Below this path bodies may be YAML."""
GZIP = 16 + zlib.MAX_WBITS

Headers = Iterable[tuple[bytes, bytes]]


def header(headers: Headers, wanted: bytes) -> str:
    """Return the last header of a name, "" without one."""
    found = b""
    for name, value in headers:
        if name == wanted:
            found = value
    return found.decode("latin-1")


def is_json(content_type: str) -> bool:
    """Return whether a `Content-Type` says JSON.

    >>> is_json("application/json; charset=utf-8"), is_json("text/plain"), is_json("")
    (True, False, False)
    """
    return content_type.partition(";")[0].strip().lower() in JSON


def wrong_type(path: str, content_type: str) -> str:
    """Return why a body of this type is not read, "" where it is.

    A web page of another site can send the types of forms, and a body without a type, without asking the server first.
    """
    allowed = BOOK if path == BOOKS or path.startswith(f"{BOOKS}/") else JSON
    given = content_type.partition(";")[0].strip().lower()
    if given in allowed:
        return ""
    got = f"got {given!r:.60}" if given else "there is none"
    return f"must be {' or '.join(allowed[:2])}; {got} (curl: -H 'Content-Type: {allowed[0]}')"


def too_large() -> JSONResponse:
    """Return the refusal of a large body; what is left of it is not read, so the connection ends."""
    return error(413, "body", f"is larger than {MAX_BODY} bytes", Connection="close")


class _Unreadable(Exception):
    """A body that is not read; `refusal` is the answer."""

    def __init__(self, refusal: JSONResponse) -> None:
        super().__init__()
        self.refusal = refusal


class CheckBody:
    """Passes on bodies of up to MAX_BODY bytes, decompressed, of a type that the path reads; refuses all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400, 413 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if _has_body(scope["headers"]):
                body = await _whole(scope, receive)
                receive = _again(body, receive)
        except _Unreadable as unreadable:
            await unreadable.refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    """Return whether a body follows the head of a request (RFC 9112, section 6.3)."""
    return header(headers, b"content-length") not in ("", "0") or header(headers, b"transfer-encoding") != ""


async def _whole(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body, None where the client goes away. Raises _Unreadable."""
    headers, parts, size = scope["headers"], list[bytes](), 0
    length = header(headers, b"content-length") or "0"
    if not length.isdigit() or int(length) > MAX_BODY:
        raise _Unreadable(too_large())
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _Unreadable(too_large())
        if not message.get("more_body", False):
            break
    body = b"".join(parts)
    if not body:
        return body
    if why := wrong_type(scope["path"], header(headers, b"content-type")):
        raise _Unreadable(error(415, "Content-Type", why))
    return _decompressed(body, header(headers, b"content-encoding").strip().lower())


def _decompressed(body: bytes, encoding: str) -> bytes:
    """Return what was compressed, never more than MAX_BODY bytes of it. Raises _Unreadable."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        message = f"must be gzip or none; got {encoding!r:.60}"
        raise _Unreadable(error(415, "Content-Encoding", message, **{"Accept-Encoding": "gzip"}))
    unpacking = zlib.decompressobj(GZIP)
    try:
        plain = unpacking.decompress(body, MAX_BODY + 1)
    except zlib.error as wrong:
        raise _Unreadable(error(400, "body", f"is not gzip: {wrong}")) from None
    if len(plain) > MAX_BODY:
        raise _Unreadable(too_large())
    if not unpacking.eof or unpacking.unused_data:
        raise _Unreadable(error(400, "body", "is not one whole gzip stream"))
    return plain


def _again(body: bytes | None, receive: Receive) -> Receive:
    """Return what gives a body that has been read, and then what else the client sends."""
    waiting = [
        {"type": "http.disconnect"} if body is None else {"type": "http.request", "body": body, "more_body": False}
    ]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
