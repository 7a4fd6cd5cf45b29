"""The gRPC interface: the same service, the same answers."""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import ValidationError

from serving.gather import Gather
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.requests import MAX_COUNT, Answer, RecommendRequest
from serving.service import Recommender
from state.store import StoreUnavailable

SERVICE = "headrace.v1.Headrace"
SCOPES = ("all", "category", "brand", "country")


def _message(answer: Answer) -> Any:
    return headrace_pb2.Answer(
        items=[
            headrace_pb2.Recommendation(
                item=one.item,
                title=one.title,
                score=one.score,
                source=one.source,
                reason=headrace_pb2.Reason(code=one.reason.code, args=one.reason.args, text=one.reason.text),
            )
            for one in answer.items
        ],
        request_id=answer.request_id,
        generation=answer.generation,
        anchor=answer.anchor or "",
        fallback=answer.fallback,
        milliseconds=answer.milliseconds,
    )


class Servicer(headrace_pb2_grpc.HeadraceServicer):
    """Checks requests as the REST interface does and asks the same recommender."""

    def __init__(self, recommender: Recommender, gather: Gather) -> None:
        self._recommender, self._gather = recommender, gather

    async def Recommend(self, request: Any, context: Any) -> Any:
        given = {field.name: value for field, value in request.ListFields()}
        for name in ("items", "exclude"):
            if name in given:
                given[name] = list(given[name])
        if "filters" in given:
            filters = {field.name: value for field, value in given["filters"].ListFields()}
            given["filters"] = filters | ({"brands": tuple(filters["brands"])} if "brands" in filters else {})
        try:
            checked = RecommendRequest(**given)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {first['msg']}")
        return _message(await self._gather.recommend(checked))

    async def SimilarItems(self, request: Any, context: Any) -> Any:
        if not request.item:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "item: is needed")
        count, lang = await self._common(request, context)
        try:
            return _message(self._recommender.similar_items(request.item, count, lang))
        except StoreUnavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is out of reach")

    async def Popular(self, request: Any, context: Any) -> Any:
        scope = request.scope or "all"
        if scope not in SCOPES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"scope: must be one of {', '.join(SCOPES)}")
        if scope != "all" and not request.name:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"name: is needed for scope {scope}")
        count, lang = await self._common(request, context)
        try:
            return _message(self._recommender.popular(scope, request.name, count, lang))
        except StoreUnavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is out of reach")

    async def _common(self, request: Any, context: Any) -> tuple[int, str]:
        if request.count > MAX_COUNT:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"count: must be within 1 and {MAX_COUNT}")
        if request.lang not in ("", "en", "de"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "lang: must be en or de")
        return request.count or 20, request.lang or "en"


def make_server(recommender: Recommender, gather: Gather, address: str) -> Any:
    """Return a grpc.aio server bound to `address`, with health and reflection; the caller starts it."""
    server = grpc.aio.server()
    headrace_pb2_grpc.add_HeadraceServicer_to_server(Servicer(recommender, gather), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(address)
    return server, checks
