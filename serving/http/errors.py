"""The one form of all errors over HTTP."""

from typing import Any

import orjson
from fastapi import Response
from fastapi.responses import JSONResponse

from serving.auth.api_keys import Refused
from serving.rendering.answer_bytes import json_default

BUSY = {"Retry-After": "1"}


def error(status: int, field: str, message: str, **headers: str) -> JSONResponse:
    """Return an error in the one form all errors have; what of it is no Unicode becomes `?`."""
    detail = {"field": readable(field), "message": readable(message)}
    return JSONResponse({"error": detail}, status, headers or None)


def readable(text: str) -> str:
    """Return a text that can be sent as UTF-8."""
    return text.encode(errors="replace").decode()


def refused(refusal: Refused) -> JSONResponse:
    """Return the answer to somebody who may not."""
    more = {401: {"WWW-Authenticate": "Bearer"}, 429: BUSY}.get(refusal.status, {})
    return error(refusal.status, refusal.field, refusal.message, **more)


def json(value: Any, status: int = 200, **headers: str) -> Response:
    """Return any value as JSON."""
    body = orjson.dumps(value, json_default, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers or None, "application/json")
