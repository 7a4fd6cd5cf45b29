"""The REST interface."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Literal

import orjson
import structlog
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.log import Log, LogUnavailable
from flows.log import Message as LogMessage
from schemas.encode import InvalidEvent, encode, event_from_json
from schemas.registry import SchemaRegistry
from serving.gather import Gather
from serving.graphql_api import make_router
from serving.requests import MAX_COUNT, Answer, RecommendRequest
from serving.service import Recommender
from state.store import StoreUnavailable

MAX_BODY = 1 << 20
MAX_EVENTS = 1000
ANSWERS = Counter("headrace_answers", "Answers given", ["method", "fallback"])
LATENCY = Histogram("headrace_answer_seconds", "Time to answer", ["method"])
APPENDED = Counter("headrace_events_appended", "Events taken over HTTP")

Count = Annotated[int, Query(ge=1, le=MAX_COUNT)]
Lang = Literal["en", "de"]
log = structlog.get_logger()


def _error(status: int, field: str, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": {"field": field, "message": message}}, status, headers or None)


def _answered(method: str, answer: Answer) -> Response:
    ANSWERS.labels(method, answer.fallback).inc()
    LATENCY.labels(method).observe(answer.milliseconds / 1000)
    return Response(orjson.dumps(answer), media_type="application/json")


class _BoundBody:
    """Refuses bodies larger than MAX_BODY, by what they say and by what comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = _error(413, "body", f"is larger than {MAX_BODY} bytes")
        if not length.isdigit() or int(length) > MAX_BODY:
            await too_large(scope, receive, send)
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


def make_app(
    recommender: Recommender, gather: Gather, events_log: Log, registry: SchemaRegistry, ready: Callable[[], bool]
) -> FastAPI:
    """Return the application; `ready` says whether /readyz answers 200."""
    app = FastAPI(title="headrace", version="1", docs_url=None, redoc_url=None)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return _error(422, field or "body", first["msg"])

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, "", str(error.detail))

    @app.exception_handler(StoreUnavailable)
    async def away(request: Request, error: StoreUnavailable) -> JSONResponse:
        return _error(503, "", "the store is out of reach", **{"Retry-After": "1"})

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", path=request.url.path, exc_info=error)
        return _error(500, "", "internal error")

    app.add_middleware(_BoundBody)
    schema = {"requestBody": {"content": {"application/json": {"schema": RecommendRequest.model_json_schema()}}}}

    @app.post("/v1/recommend", openapi_extra=schema)
    async def recommend(request: Request) -> Response:
        # Validated here: the framework's own way through its dependencies takes twice as long.
        try:
            asked = RecommendRequest.model_validate_json(await request.body() or b"{}")
        except ValidationError as error:
            first = error.errors()[0]
            return _error(422, ".".join(str(part) for part in first["loc"]) or "body", first["msg"])
        return _answered("recommend", await gather.recommend(asked))

    @app.get("/v1/items/{item}/similar")
    async def similar(
        item: Annotated[str, Path(min_length=1, max_length=256)], count: Count = 20, lang: Lang = "en"
    ) -> Response:
        return _answered("similar", recommender.similar_items(item, count, lang))

    @app.get("/v1/popular")
    async def popular(
        scope: Literal["all", "category", "brand", "country"] = "all",
        name: Annotated[str, Query(max_length=256)] = "",
        count: Count = 20,
        lang: Lang = "en",
    ) -> Response:
        if scope != "all" and not name:
            return _error(422, "name", f"is needed for scope {scope}")
        return _answered("popular", recommender.popular(scope, name, count, lang))

    @app.post("/v1/events", status_code=202)
    async def take_events(request: Request) -> JSONResponse:
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "body", "is not JSON")
        events = body if isinstance(body, list) else [body]
        if not 1 <= len(events) <= MAX_EVENTS:
            return _error(422, "body", f"must hold 1 to {MAX_EVENTS} events")
        now_ms = time.time_ns() // 1_000_000
        messages, ids = [], []
        for index, event in enumerate(events):
            if not isinstance(event, dict):
                return _error(422, f"[{index}]", "must be an object")
            if "event_id" not in event and event.get("type") not in ("product", "product_gone"):
                event = {**event, "event_id": uuid.uuid4().hex}
            try:
                topic, record, key = event_from_json(event, now_ms)
            except InvalidEvent as error:
                return _error(422, f"[{index}].{error.field}", error.message)
            value = None if record is None else encode(topic, record, registry)
            messages.append(LogMessage(topic, key, value, now_ms if record is None else record["ts_ms"]))
            ids.append(event.get("event_id"))
        try:
            await asyncio.to_thread(events_log.append, messages)
        except LogUnavailable as error:
            log.error("events refused", error=str(error))
            return _error(503, "", "the log takes no events now; nothing was taken", **{"Retry-After": "1"})
        APPENDED.inc(len(messages))
        return JSONResponse({"accepted": len(messages), "event_ids": ids}, 202)

    app.include_router(make_router(recommender, gather), prefix="/graphql")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return JSONResponse({"ready": ready(), "items": len(recommender.shop.catalogue)}, 200 if ready() else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
