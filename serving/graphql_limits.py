"""How much one GraphQL call may ask for, and what it reads of errors."""

from collections.abc import Iterator
from typing import Any

from graphql import FragmentSpreadNode, GraphQLError, Visitor, visit
from pybreaker import CircuitBreakerError
from strawberry.extensions import MaskErrors, MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter, SchemaExtension

from serving.api_keys import Refused
from serving.gather import Overloaded, RequestFailed, failed
from serving.service import BadRequest
from state.store import StoreUnavailable

MAX_DEPTH = 4
"""Of fields in fields. The deepest there are: recommendBatch, items, reason, text."""
MAX_ALIASES = 30
"""A page with a dozen lists has a dozen; who wants more lists sends `recommendBatch`."""
MAX_TOKENS = 2_000
"""Thirty aliases with all of their fields and arguments are some 1,500. Lists of requests come as variables."""
MAX_SPREADS = 30
"""Fragments that spread one another twice double the query each time, for the limits of depth and aliases too."""
CODES = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 422: "BAD_REQUEST", 429: "RATE_LIMITED"}


class _Spreads(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def enter_fragment_spread(self, node: FragmentSpreadNode, *_: Any) -> None:
        self.n += 1


class MaxSpreadsLimiter(SchemaExtension):
    """Refuses a document with more than MAX_SPREADS spreads of fragments, before any rule follows them."""

    def on_validate(self) -> Iterator[None]:
        found, context = _Spreads(), self.execution_context
        assert context.graphql_document is not None
        visit(context.graphql_document, found)
        if found.n > MAX_SPREADS:
            context.pre_execution_errors = [GraphQLError(f"{found.n} fragment spreads found. Allowed: {MAX_SPREADS}")]
        yield


class ReadableErrors(MaskErrors):
    """Gives each error a code; what went wrong inside is logged, and told by its request id only."""

    def anonymise_error(self, error: GraphQLError) -> GraphQLError:
        code, message, more = _told(error)
        return GraphQLError(
            message, error.nodes, error.source, error.positions, error.path, extensions={"code": code, **more}
        )


def _told(error: GraphQLError) -> tuple[str, str, dict[str, Any]]:
    """Return (code, message, further extensions)."""
    match error.original_error:
        case None | GraphQLError():
            return "BAD_REQUEST", error.message, {}
        case BadRequest() as wrong:
            return "BAD_REQUEST", str(wrong), {"field": wrong.field}
        case RecursionError():
            return "BAD_REQUEST", "the query is nested too deeply", {}
        case Refused() as wrong:
            return CODES[wrong.status], wrong.message, {}
        case Overloaded() as wrong:
            return "OVERLOADED", f"{wrong}; try again in a second", {}
        case StoreUnavailable() | CircuitBreakerError():
            return "UNAVAILABLE", "the store is out of reach", {}
        case RequestFailed() as wrong:
            return "INTERNAL", str(wrong), {"request_id": wrong.request_id}
        case wrong:
            told = failed(wrong, ())
            return "INTERNAL", str(told), {"request_id": told.request_id}


def extensions() -> list[Any]:
    """Return the schema's extensions, made anew for each call, since they keep its context."""
    return [
        ReadableErrors,
        lambda: MaxTokensLimiter(MAX_TOKENS),
        MaxSpreadsLimiter,
        lambda: QueryDepthLimiter(MAX_DEPTH),
        lambda: MaxAliasesLimiter(MAX_ALIASES),
    ]
