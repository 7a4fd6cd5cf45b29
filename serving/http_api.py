"""The REST interface."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import orjson
import structlog
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from pybreaker import CircuitBreaker, CircuitBreakerError

from flows.log import Log, LogUnavailable
from flows.log import Message as LogMessage
from schemas.encode import InvalidEvent, encode, event_from_json
from schemas.registry import RegistryUnavailable, SchemaRegistry
from serving.answer_counts import count as count_answers
from serving.api_keys import Guard
from serving.clock import now_ms
from serving.explorer_api import Explorer
from serving.gather import Gather
from serving.graphql_api import make_router
from serving.hot_path import HotProtocol
from serving.http_asks import BATCH, RECOMMEND, make_asks
from serving.http_parts import BoundBody, CheckKey, add_error_handlers, check_events, error, secret_of
from serving.requests import MAX_COUNT, Answer, RecommendRequest
from serving.rules_api import rules_router
from serving.schema_ids import SchemaIds
from serving.service import Recommender
from serving.wire import answer_json, json_default

MAX_EVENTS = 1000
LIST_AGE_S = 5
"""How long a cache on the way may keep an answer that is the same for everybody."""
APPENDED = Counter("headrace_events_appended", "Events taken over HTTP")

Count = Annotated[int, Query(ge=1, le=MAX_COUNT)]
Lang = Literal["en", "de"]
log = structlog.get_logger()


def _same_for_everybody(request: Request, method: str, answer: Answer) -> Response:
    """Return an anonymous list so that a cache can keep it and ask whether it is still the same."""
    count_answers(method, [answer])
    shown = orjson.dumps([answer.items, answer.fallback, answer.rules_version], default=json_default)
    headers = {"ETag": f'"{hashlib.sha256(shown).hexdigest()[:24]}"', "Cache-Control": f"public, max-age={LIST_AGE_S}"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(answer_json(answer), headers=headers, media_type="application/json")


def make_app(
    recommender: Recommender, gather: Gather, events_log: Log, registry: SchemaRegistry, ready: Callable[[], bool],
    guard: Guard,
) -> FastAPI:  # fmt: skip
    """Return the application; `ready` says whether /readyz answers 200. `state.hot` is the protocol to serve it by."""
    app = FastAPI(title="headrace", version="1", docs_url=None, redoc_url=None)
    add_error_handlers(app)
    app.add_middleware(BoundBody)
    app.add_middleware(CheckKey, guard=guard)
    explorer = Explorer(recommender)
    schema_ids = SchemaIds(registry)
    append = CircuitBreaker(3, 2.0, exclude=[lambda wrong: not isinstance(wrong, LogUnavailable)]).call
    schema = {"requestBody": {"content": {"application/json": {"schema": RecommendRequest.model_json_schema()}}}}

    asks = make_asks(recommender, gather, guard, explorer.met)
    app.state.hot = partial(HotProtocol, asks, guard)

    async def by_route(path: str, request: Request) -> Response:
        """Ask as the hot path does, for requests that it leaves to the framework."""
        reply: asyncio.Future[bytes | Response] = asyncio.get_running_loop().create_future()
        body, secret = await request.body(), secret_of(request.headers.raw)
        asks[path.encode()](body, secret, lambda found: None if reply.done() else reply.set_result(found))
        found = await reply
        return found if isinstance(found, Response) else Response(found, media_type="application/json")

    @app.post(RECOMMEND, openapi_extra=schema)
    async def recommend(request: Request) -> Response:
        """Items for a user, a session, items in context."""
        return await by_route(RECOMMEND, request)

    @app.post(BATCH)
    async def recommend_batch(request: Request) -> Response:
        """Many requests, answered together, in order."""
        return await by_route(BATCH, request)

    @app.get("/v1/items/{item}/similar")
    async def similar(
        request: Request, item: Annotated[str, Path(min_length=1, max_length=256)], count: Count = 20, lang: Lang = "en"
    ) -> Response:
        await recommender.store.heard()
        return _same_for_everybody(request, "similar", recommender.similar_items(item, count, now_ms(), lang))

    @app.get("/v1/popular")
    async def popular(
        request: Request,
        scope: Literal["all", "category", "brand", "country"] = "all",
        name: Annotated[str, Query(max_length=256)] = "",
        count: Count = 20,
        lang: Lang = "en",
    ) -> Response:
        if scope != "all" and not name:
            return error(422, "name", f"is needed for scope {scope}")
        if scope != "all":  # which is in memory
            await recommender.store.heard()
        return _same_for_everybody(request, "popular", recommender.popular(scope, name, count, now_ms(), lang))

    @app.post("/v1/events", status_code=202)
    async def take_events(request: Request) -> JSONResponse:
        try:
            body = await request.json()
        except ValueError:
            return error(400, "body", "is not JSON")
        events = body if isinstance(body, list) else [body]
        if not 1 <= len(events) <= MAX_EVENTS:
            return error(422, "body", f"must hold 1 to {MAX_EVENTS} events")
        check_events(guard, request, events)
        at_ms = now_ms()
        messages, ids = [], []
        for index, event in enumerate(events):
            if not isinstance(event, dict):
                return error(422, f"[{index}]", "must be an object")
            if "event_id" not in event and event.get("type") not in ("product", "product_gone"):
                event = {**event, "event_id": uuid.uuid4().hex}
            try:
                topic, record, key = event_from_json(event, at_ms)
            except InvalidEvent as wrong:
                return error(422, f"[{index}].{wrong.field}", wrong.message)
            try:
                if record is not None:
                    await schema_ids.need(topic)
            except RegistryUnavailable as wrong:
                log.error("events refused", error=str(wrong))
                return error(503, "", "the schema registry is away; nothing was taken", **{"Retry-After": "1"})
            value = None if record is None else encode(topic, record, registry)
            messages.append(LogMessage(topic, key, value, at_ms if record is None else record["ts_ms"]))
            ids.append(event.get("event_id"))
            explorer.met(event.get("user"))
        try:
            await asyncio.to_thread(append, events_log.append, messages)
        except (LogUnavailable, CircuitBreakerError) as wrong:
            log.error("events refused", error=str(wrong))
            return error(503, "", "the log takes no events now; nothing was taken", **{"Retry-After": "1"})
        APPENDED.inc(len(messages))
        return JSONResponse({"accepted": len(messages), "event_ids": ids}, 202)

    app.include_router(make_router(recommender, gather, guard), prefix="/graphql")
    app.include_router(rules_router(recommender))
    app.include_router(explorer.router)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        shop = recommender.shop
        state = {"ready": ready(), "items": len(shop.catalogue), "rules_left_out": sorted(shop.rules.left_out)}
        return JSONResponse(state, 200 if ready() else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
