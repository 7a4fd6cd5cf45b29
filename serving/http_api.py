"""The REST interface."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

import structlog
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException

from flows.log import Log, LogUnavailable, Message
from schemas.encode import InvalidEvent, encode, event_from_json
from schemas.registry import SchemaRegistry
from serving.gather import Gather
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


def _body(method: str, answer: Answer) -> dict[str, Any]:
    ANSWERS.labels(method, answer.fallback).inc()
    LATENCY.labels(method).observe(answer.milliseconds / 1000)
    return asdict(answer)


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

    @app.middleware("http")
    async def bound_body(request: Request, go_on: Any) -> Response:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return _error(413, "body", f"is larger than {MAX_BODY} bytes")
        answer: Response = await go_on(request)
        return answer

    @app.post("/v1/recommend")
    async def recommend(request: RecommendRequest) -> JSONResponse:
        return JSONResponse(_body("recommend", await gather.recommend(request)))

    @app.get("/v1/items/{item}/similar")
    async def similar(
        item: Annotated[str, Path(min_length=1, max_length=256)], count: Count = 20, lang: Lang = "en"
    ) -> JSONResponse:
        return JSONResponse(_body("similar", recommender.similar_items(item, count, lang)))

    @app.get("/v1/popular")
    async def popular(
        scope: Literal["all", "category", "brand", "country"] = "all",
        name: Annotated[str, Query(max_length=256)] = "",
        count: Count = 20,
        lang: Lang = "en",
    ) -> JSONResponse:
        if scope != "all" and not name:
            return _error(422, "name", f"is needed for scope {scope}")
        return JSONResponse(_body("popular", recommender.popular(scope, name, count, lang)))

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
            messages.append(Message(topic, key, value, now_ms if record is None else record["ts_ms"]))
            ids.append(event.get("event_id"))
        try:
            await asyncio.to_thread(events_log.append, messages)
        except LogUnavailable as error:
            log.error("events refused", error=str(error))
            return _error(503, "", "the log takes no events now; nothing was taken", **{"Retry-After": "1"})
        APPENDED.inc(len(messages))
        return JSONResponse({"accepted": len(messages), "event_ids": ids}, 202)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return JSONResponse({"ready": ready(), "items": len(recommender.catalogue)}, 200 if ready() else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
