"""The gRPC interface: the same service, the same answers."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf import message_factory
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection
from pydantic import ValidationError

from serving.answer_counts import count as count_answers
from serving.api_keys import Guard, Refused
from serving.clock import now_ms
from serving.gather import Gather, Overloaded, RequestFailed, failed
from serving.grpc_calls import SERVICE, Call, parsed, receive, secret_of
from serving.grpc_hot_call import Reply
from serving.grpc_hot_path import KINDS
from serving.grpc_server import GrpcServer
from serving.proto import headrace_pb2
from serving.requests import MAX_BATCH, MAX_COUNT, Answer, RecommendRequest, first_error
from serving.service import BadRequest, Recommender
from serving.wire import answer_message, batch_message
from state.store import StoreUnavailable

REFUSALS = {401: Status.UNAUTHENTICATED, 403: Status.PERMISSION_DENIED, 429: Status.RESOURCE_EXHAUSTED}
SCOPES = ("all", "category", "brand", "country")
READ = headrace_pb2.RecommendRequest.FromString


def _request(message: Any) -> RecommendRequest:
    """Return the request a message says. Raises ValidationError."""
    given = {field.name: value for field, value in message.ListFields()}
    for name in ("items", "exclude"):
        if name in given:
            given[name] = tuple(given[name])
    if "experiments" in given:
        given["experiments"] = dict(given["experiments"])
    if "filters" in given:
        filters = {field.name: value for field, value in given["filters"].ListFields()}
        given["filters"] = filters | ({"brands": tuple(filters["brands"])} if "brands" in filters else {})
    return RecommendRequest(**given)


def _invalid(field: str, message: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, f"{field}: {message}")


class Servicer:
    """Checks requests as the REST interface does and asks the same recommender."""

    def __init__(self, recommender: Recommender, gather: Gather, guard: Guard) -> None:
        self._recommender, self._gather, self._guard = recommender, gather, guard

    def __mapping__(self) -> dict[str, Handler]:
        """Return the methods by path, as grpclib asks for them."""
        service = headrace_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
        found = {}
        for method in service.methods:
            if f"/{SERVICE}/{method.name}" in KINDS:  # calls that get here have headers that are no call's
                continue
            types = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
            found[f"/{SERVICE}/{method.name}"] = Handler(
                self._guarded(getattr(self, method.name)), Cardinality.UNARY_UNARY, *types
            )
        return found

    def _guarded(self, method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
        """Return the method for those with a key."""

        async def call(stream: Call) -> None:
            metadata: Any = stream.metadata or {}
            self.admit(secret_of(metadata))
            await method(stream)

        return call

    def admit(self, secret: str) -> None:
        """Raise GRPCError unless the API key is one that may read."""
        try:
            self._guard.admit(secret, "read")
        except Refused as refusal:
            raise GRPCError(REFUSALS[refusal.status], refusal.message) from None

    def answer(self, body: bytes, reply: Reply) -> None:
        """Have `reply` called with the answer to a request for recommendations, as bytes or why there is none."""

        def done(found: Sequence[Answer] | Exception) -> None:
            if isinstance(found, Exception):
                reply(_without_answer(found))
            else:
                count_answers("grpc", found)
                reply(answer_message(found[0]))

        try:
            self._gather.ask([self._checked(parsed(body, READ))], b"\0" + body, done)
        except Overloaded as error:
            reply(_without_answer(error))
        except GRPCError as error:
            reply(error)
        except Exception as error:
            reply(_without_answer(failed(error, ())))

    async def RecommendBatch(self, call: Call) -> None:
        requests = (await receive(call)).requests
        if not 1 <= len(requests) <= MAX_BATCH:
            raise _invalid("requests", f"must hold 1 to {MAX_BATCH}")
        checked = [self._checked(one, f"requests.{n}.") for n, one in enumerate(requests)]
        try:
            answers = await self._gather.recommend_all(checked)
        except (Overloaded, RequestFailed, StoreUnavailable) as error:
            raise _without_answer(error) from None
        count_answers("grpc_batch", answers)
        await call.send_message(batch_message(answers))

    async def SimilarItems(self, call: Call) -> None:
        request = await receive(call)
        if not request.item:
            raise _invalid("item", "is needed")
        count, lang = _common(request)
        try:
            answer = self._recommender.similar_items(request.item, count, now_ms(), lang)
        except StoreUnavailable as error:
            raise _without_answer(error) from None
        except BadRequest as error:
            raise _invalid(error.field, error.message) from None
        count_answers("similar", [answer])
        await call.send_message(answer_message(answer))

    async def Popular(self, call: Call) -> None:
        request = await receive(call)
        scope = request.scope or "all"
        if scope not in SCOPES:
            raise _invalid("scope", f"must be one of {', '.join(SCOPES)}")
        if scope != "all" and not request.name:
            raise _invalid("name", f"is needed for scope {scope}")
        count, lang = _common(request)
        try:
            answer = self._recommender.popular(scope, request.name, count, now_ms(), lang)
        except StoreUnavailable as error:
            raise _without_answer(error) from None
        except BadRequest as error:
            raise _invalid(error.field, error.message) from None
        count_answers("popular", [answer])
        await call.send_message(answer_message(answer))

    def _checked(self, message: Any, before: str = "") -> RecommendRequest:
        """Return the request a message says. Raises GRPCError that names the field, `before` in front of it."""
        try:
            asked = _request(message)
            self._recommender.check(asked)
        except ValidationError as error:
            field, said = first_error(error)
            raise _invalid(f"{before}{field}", said) from None
        except BadRequest as error:
            raise _invalid(f"{before}{error.field}", error.message) from None
        return asked


def _common(request: Any) -> tuple[int, str]:
    if request.count > MAX_COUNT:
        raise _invalid("count", f"must be within 1 and {MAX_COUNT}")
    if request.lang not in ("", "en", "de"):
        raise _invalid("lang", "must be en or de")
    return request.count or 20, request.lang or "en"


def _without_answer(error: Exception) -> GRPCError:
    """Return how a call ends that the queue has no answer for; the queue has logged why."""
    if isinstance(error, Overloaded):
        return GRPCError(Status.RESOURCE_EXHAUSTED, f"{error}; try again in a second")
    if isinstance(error, StoreUnavailable):
        return GRPCError(Status.UNAVAILABLE, "the store is out of reach")
    return GRPCError(Status.INTERNAL, str(error))


def make_server(recommender: Recommender, gather: Gather, guard: Guard) -> GrpcServer:
    """Return a server with health and reflection; health is of the whole process, and open as reflection is."""
    servicer = Servicer(recommender, gather, guard)
    services = ServerReflection.extend([servicer, Health({servicer: [], OVERALL: []})])
    return GrpcServer(services, servicer)
