"""Limits of one GraphQL call, and the errors it returns."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, GraphQLError, Visitor, visit
from strawberry.extensions import MaskErrors, MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter, SchemaExtension

from serving.auth.api_keys import Refused
from serving.engine.calls import RequestFailed, failed
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest
from state.store.contract import StoreUnavailable

MAX_DEPTH = 4
"""Of fields in fields. The deepest there are: recommendBatch, items, reason, text."""
MAX_ALIASES = 30
"""A page with a dozen lists has a dozen; who wants more lists sends `recommendBatch`."""
MAX_TOKENS = 2_000
"""Thirty aliases with all of their fields and arguments are some 1,500. Lists of requests come as variables."""
MAX_SPREADS = 100
"""Of fragments, each followed to its end: fragments that spread one another twice double the query each time."""
MAX_SAME = 64
"""Fields of one name. The rule that says whether they can be merged compares all with all: 490 took it a second."""
CODES = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 422: "BAD_REQUEST", 429: "RATE_LIMITED"}


class _Contents(Visitor):
    """Counts of a document: uses of each field name, and the fragments that each definition spreads."""

    def __init__(self) -> None:
        super().__init__()
        self.fields = Counter[str]()
        self.spreads: dict[str, list[str]] = {}
        self._of = self.spreads.setdefault("", [])

    def enter_operation_definition(self, *_: Any) -> None:
        self._of = self.spreads[""]

    def enter_fragment_definition(self, node: FragmentDefinitionNode, *_: Any) -> None:
        self._of = self.spreads.setdefault(node.name.value, [])

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        self.fields[(node.alias or node.name).value] += 1

    def enter_fragment_spread(self, node: FragmentSpreadNode, *_: Any) -> None:
        self._of.append(node.name.value)

    def fault(self) -> str:
        """Return what there is too much of, "" for nothing."""
        for name, times in self.fields.most_common(1):
            if times > MAX_SAME:
                return f"{times} fields {name} found. Allowed: {MAX_SAME}"
        followed, waiting = 0, list(self.spreads[""])
        while waiting:
            followed += 1
            if followed > MAX_SPREADS:
                return f"more than {MAX_SPREADS} fragment spreads found, those in fragments among them"
            waiting += self.spreads.get(waiting.pop(), ())
        return ""


class MaxContents(SchemaExtension):
    """Refuses a document that the rules of validation would take long to look through, before they do."""

    def on_validate(self) -> Iterator[None]:
        """Refuse the document before the rules of validation see it."""
        found, context = _Contents(), self.execution_context
        assert context.graphql_document is not None
        visit(context.graphql_document, found)
        if fault := found.fault():
            context.pre_execution_errors = [GraphQLError(fault)]
        yield


class ReadableErrors(MaskErrors):
    """Gives each error a code. Internal errors are logged; the caller gets their request id only."""

    def anonymise_error(self, error: GraphQLError) -> GraphQLError:
        """Return an error as callers get it."""
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
        case StoreUnavailable():
            return "UNAVAILABLE", "the store is out of reach", {}
        case RequestFailed() as wrong:
            return "INTERNAL", str(wrong), {"request_id": wrong.request_id}
        case wrong:
            failure = failed(wrong, ())
            return "INTERNAL", str(failure), {"request_id": failure.request_id}


def extensions() -> list[Any]:
    """Return the schema's extensions, made anew for each call, since they keep its context."""
    return [
        ReadableErrors,
        lambda: MaxTokensLimiter(MAX_TOKENS),
        MaxContents,
        lambda: QueryDepthLimiter(MAX_DEPTH),
        lambda: MaxAliasesLimiter(MAX_ALIASES),
    ]
