"""The gRPC interface: the same service, the same answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from pydantic import ValidationError

from serving.auth.api_keys import Guard
from serving.engine.clock import now_ms
from serving.engine.metrics import count as count_answers
from serving.engine.micro_batcher import MicroBatcher
from serving.engine.recommender import BadRequest, Recommender
from serving.grpc.failures import Code, Failure
from serving.grpc.interceptors import SECRET, SERVICE, CallInterceptor, Context
from serving.grpc.server import GrpcServer
from serving.grpc.streams import OpenStreams
from serving.proto import headrace_pb2
from serving.rendering.answer_bytes import answer_message, batch_message
from serving.request.answer import Answer
from serving.request.requests import MAX_BATCH, MAX_COUNT, RecommendRequest, first_error

SCOPES = ("all", "category", "brand", "country")
MESSAGE_S = 10.0
"""How long a call may take to send its one request."""


def _request(message: Any) -> RecommendRequest:
    """Return the request in a message. Raises ValidationError."""
    given = {field.name: value for field, value in message.ListFields()}
    for name in ("items", "exclude", "fields"):
        if name in given:
            given[name] = tuple(given[name])
    if "experiments" in given:
        given["experiments"] = dict(given["experiments"])
    if "filters" in given:
        filters = {field.name: value for field, value in given["filters"].ListFields()}
        given["filters"] = filters | ({"brands": tuple(filters["brands"])} if "brands" in filters else {})
    return RecommendRequest(**given)


class Servicer:
    """Checks requests as the REST interface does and asks the same recommender.

    Requests and answers are bytes here: equal requests are found by theirs, and the kernels write answers.
    """

    def __init__(self, recommender: Recommender, batcher: MicroBatcher, guard: Guard) -> None:
        self._recommender, self._batcher, self._guard = recommender, batcher, guard
        self.streams = OpenStreams()

    def handlers(self) -> dict[str, Any]:
        """Return what handles each method, by name.

        All are handlers of streams, which read for themselves: in grpc.aio a call that ends without its one
        request gets no status otherwise.
        """
        single: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            "Recommend": self._recommend, "RecommendBatch": self._recommend_batch,
            "SimilarItems": self._similar_items, "Popular": self._popular,
        }  # fmt: skip
        found = {name: grpc.stream_unary_rpc_method_handler(_once(method)) for name, method in single.items()}
        return found | {"RecommendStream": grpc.stream_stream_rpc_method_handler(self._recommend_stream)}

    async def _recommend(self, body: bytes) -> bytes:
        found = await self._ask(body)
        if isinstance(found, Exception):
            raise found
        return found

    async def _recommend_stream(self, messages: Any, context: Context) -> None:
        await self.streams.run(context, self._ask)

    def _ask(self, body: bytes) -> asyncio.Future[bytes | Exception]:
        """Begin to answer one request; never raises."""
        answer: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()

        def done(found: Sequence[Answer] | Exception) -> None:
            if answer.done():  # the client has gone
                return
            if isinstance(found, Exception):
                answer.set_result(found)
            else:
                answer.set_result(answer_message(found[0]))
                count_answers("grpc", found)

        try:
            self._spend(1)
            self._batcher.submit([self._checked(headrace_pb2.RecommendRequest.FromString(body))], b"\0" + body, done)
        except Exception as error:
            answer.set_result(error)
        return answer

    async def _recommend_batch(self, body: bytes) -> bytes:
        requests = headrace_pb2.BatchRequest.FromString(body).requests
        self._spend(len(requests))
        if not 1 <= len(requests) <= MAX_BATCH:
            raise BadRequest("requests", f"must hold 1 to {MAX_BATCH}")
        checked = [self._checked(one, f"requests.{n}.") for n, one in enumerate(requests)]
        answers = await self._batcher.recommend_all(checked)
        count_answers("grpc_batch", answers)
        return batch_message(answers)

    async def _similar_items(self, body: bytes) -> bytes:
        request = headrace_pb2.SimilarItemsRequest.FromString(body)
        if not request.item:
            raise BadRequest("item", "is needed")
        count, lang = _common(request)
        await self._recommender.store.ready()
        answer = self._recommender.similar_items(request.item, count, now_ms(), lang, _fields(request))
        count_answers("similar", [answer])
        return answer_message(answer)

    async def _popular(self, body: bytes) -> bytes:
        request = headrace_pb2.PopularRequest.FromString(body)
        scope = request.scope or "all"
        if scope not in SCOPES:
            raise BadRequest("scope", f"must be one of {', '.join(SCOPES)}")
        if scope != "all" and not request.name:
            raise BadRequest("name", f"is needed for scope {scope}")
        count, lang = _common(request)
        if scope != "all":
            await self._recommender.store.ready()
        answer = self._recommender.popular(scope, request.name, count, now_ms(), lang, _fields(request))
        count_answers("popular", [answer])
        return answer_message(answer)

    def _spend(self, n_lists: int) -> None:
        """Take lists off the rate of the call's API key, which may be gone since the call began. Raises Refused."""
        self._guard.admit(SECRET.get(), "recommend", n_lists)

    def _checked(self, message: Any, before: str = "") -> RecommendRequest:
        """Return the request in a message. Raises BadRequest that names the field, `before` in front of it."""
        try:
            asked = _request(message)
            self._recommender.check(asked)
        except ValidationError as error:
            field, text = first_error(error)
            raise BadRequest(f"{before}{field}", text) from None
        except BadRequest as error:
            raise BadRequest(f"{before}{error.field}", error.message) from None
        return asked


def _once(method: Callable[[bytes], Awaitable[bytes]]) -> Callable[[Any, Context], Awaitable[bytes]]:
    """Return a method with one request for one with a stream of them."""

    async def call(messages: Any, context: Context) -> bytes:
        try:
            async with asyncio.timeout(MESSAGE_S):
                message = await context.read()
        except TimeoutError:
            raise Failure(Code.INVALID_ARGUMENT, f"no whole request has come in {MESSAGE_S:g} s") from None
        if message is grpc.aio.EOF:
            raise Failure(Code.INVALID_ARGUMENT, "there is no whole request")
        return await method(message)

    return call


def _fields(request: Any) -> tuple[str, ...] | None:
    """Return the product fields that a request names, None for those of its placement."""
    return tuple(request.fields) or None


def _common(request: Any) -> tuple[int, str]:
    if request.count > MAX_COUNT:
        raise BadRequest("count", f"must be within 1 and {MAX_COUNT}")
    if request.lang not in ("", "en", "de"):
        raise BadRequest("lang", "must be en or de")
    return request.count or 20, request.lang or "en"


def make_server(recommender: Recommender, batcher: MicroBatcher, guard: Guard) -> GrpcServer:
    """Return a server with health and reflection; health is of the whole process, and open as reflection is."""
    servicer = Servicer(recommender, batcher, guard)
    return GrpcServer(SERVICE, servicer.handlers(), [CallInterceptor(guard)], servicer.streams)
