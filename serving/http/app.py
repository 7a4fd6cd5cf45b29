"""The REST interface."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import orjson
import structlog
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware

from flows.books import Books
from flows.log.contract import Log
from flows.settings import limits_of
from schemas.registry import SchemaRegistry
from serving.auth.api_keys import Guard, secret_of
from serving.engine.clock import now_ms
from serving.engine.metrics import count as count_answers
from serving.engine.micro_batcher import MicroBatcher
from serving.engine.recommender import Recommender
from serving.graphql.schema import make_router
from serving.http.bodies import CheckBody
from serving.http.description.openapi import openapi
from serving.http.description.page import docs_router
from serving.http.errors import error
from serving.http.events_api import Events, events_router
from serving.http.explorer_api import Explorer
from serving.http.exposition import exposition
from serving.http.fast_protocol import FastProtocol
from serving.http.handlers import BATCH, RECOMMEND, make_handlers
from serving.http.middleware import CheckKey, add_error_handlers
from serving.http.parameters import refuse_unknown_parameters
from serving.http.routes import PathId, Routes
from serving.http.rules_api import rules_router
from serving.rendering.answer_bytes import answer_json, json_default
from serving.request.answer import Answer
from serving.request.descriptions import PopularRequest, meaning
from serving.request.product_fields import names_in
from serving.request.requests import MAX_COUNT

LIST_AGE_S = 5
"""How long a cache on the way may keep an answer that is the same for everybody."""
PREFLIGHT_AGE_S = 600

Count = Annotated[int, Query(ge=1, le=MAX_COUNT, description=meaning(PopularRequest, "count"))]
Lang = Annotated[Literal["en", "de"], Query(description=meaning(PopularRequest, "lang"))]
FieldNames = Annotated[list[str] | None, Query(description=meaning(PopularRequest, "fields"), examples=["title,price"])]
log = structlog.get_logger()


def _same_for_everybody(request: Request, method: str, answer: Answer) -> Response:
    """Return an anonymous list that a cache can keep and revalidate."""
    count_answers(method, [answer])
    shown = orjson.dumps([answer.items, answer.fallback, answer.rules_version], default=json_default)
    headers = {"ETag": f'"{hashlib.sha256(shown).hexdigest()[:24]}"', "Cache-Control": f"public, max-age={LIST_AGE_S}"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(answer_json(answer), headers=headers, media_type="application/json")


def make_app(
    recommender: Recommender, batcher: MicroBatcher, events_log: Log, registry: SchemaRegistry,
    ready: Callable[[], bool], guard: Guard, books: Books, origins: tuple[str, ...] = (),
) -> FastAPI:  # fmt: skip
    """Return the application; /readyz answers 200 where `ready` is true. `state.hot` is the protocol to serve it by.

    `origins`: of sites whose pages may call it.
    """
    strict = [Depends(refuse_unknown_parameters)]
    app = FastAPI(title="headrace", version="1", docs_url=None, redoc_url=None, dependencies=strict)
    add_error_handlers(app)
    _add_middleware(app, guard, origins)
    explorer = Explorer(recommender)

    handlers = make_handlers(recommender, batcher, guard, explorer.note_user)
    app.state.hot = partial(FastProtocol, handlers, guard, bool(origins))

    async def by_route(path: str, request: Request) -> Response:
        """Answer as the fast protocol does, for requests that it leaves to the framework."""
        reply: asyncio.Future[bytes | Response] = asyncio.get_running_loop().create_future()
        body, secret = await request.body(), secret_of(request.headers.raw)
        handlers[path.encode()](body, secret, lambda found: None if reply.done() else reply.set_result(found))
        found = await reply
        return found if isinstance(found, Response) else Response(found, media_type="application/json")

    @app.post(RECOMMEND)
    async def recommend(request: Request) -> Response:
        return await by_route(RECOMMEND, request)

    @app.post(BATCH)
    async def recommend_batch(request: Request) -> Response:
        return await by_route(BATCH, request)

    @app.get("/v1/items/{item}/similar")
    async def similar(
        request: Request, item: PathId, count: Count = 20, lang: Lang = "en", fields: FieldNames = None
    ) -> Response:
        await recommender.store.ready()
        answer = recommender.similar_items(item, count, now_ms(), lang, fields and names_in(fields))
        return _same_for_everybody(request, "similar", answer)

    @app.get("/v1/popular")
    async def popular(
        request: Request,
        scope: Annotated[
            Literal["all", "category", "brand", "country"], Query(description=meaning(PopularRequest, "scope"))
        ] = "all",
        name: Annotated[str, Query(max_length=256, description=meaning(PopularRequest, "name"))] = "",
        count: Count = 20,
        lang: Lang = "en",
        fields: FieldNames = None,
    ) -> Response:
        if scope != "all" and not name:
            return error(422, "name", f"is needed for scope {scope}")
        if scope != "all":  # which is in memory
            await recommender.store.ready()
        answer = recommender.popular(scope, name, count, now_ms(), lang, fields and names_in(fields))
        return _same_for_everybody(request, "popular", answer)

    events = Events(events_log, registry, limits_of(recommender.shop.settings))
    app.include_router(events_router(events, guard, explorer.note_user))
    app.include_router(make_router(recommender, batcher, guard), prefix="/graphql")
    app.include_router(rules_router(recommender, books))
    app.include_router(explorer.router)
    app.include_router(docs_router())

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        shop = recommender.shop
        state = {
            "ready": ready(), "items": len(shop.catalogue), "skipped_rules": sorted(shop.rules.skipped),
            "book_missing": recommender.book_missing,
        }  # fmt: skip
        return JSONResponse(state, 200 if ready() else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(recommender, now_ms()), media_type=CONTENT_TYPE_LATEST)

    _describe(app)
    return app


def _add_middleware(app: FastAPI, guard: Guard, origins: tuple[str, ...]) -> None:
    """Add what each request passes on its way, the last one first."""
    app.add_middleware(CheckBody)
    app.add_middleware(CheckKey, guard=guard, origins=origins)
    app.add_middleware(Routes)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=("GET", "POST", "PUT"), allow_headers=("*",),
            expose_headers=("ETag", "Retry-After"), max_age=PREFLIGHT_AGE_S,
        )  # fmt: skip


def _describe(app: FastAPI) -> None:
    """Serve our own OpenAPI document instead of the framework's, made when it is first asked for."""
    made: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not made:
            made.update(openapi(app.routes))
        return made

    app.openapi = described  # type: ignore[method-assign]
