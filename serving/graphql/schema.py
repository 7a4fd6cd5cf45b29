"""The GraphQL interface: the same service, the same answers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
import strawberry
from cross_web import HTTPException as NoQuery
from fastapi import HTTPException, Request
from graphql import GraphQLError
from pydantic import ValidationError
from strawberry.fastapi import GraphQLRouter
from strawberry.scalars import JSON

from serving.auth.access import GRAPHQL, HIGHEST
from serving.auth.api_keys import Guard, secret_of
from serving.engine.clock import now_ms
from serving.engine.metrics import count as count_answers
from serving.engine.micro_batcher import MicroBatcher
from serving.engine.recommender import BadRequest, Recommender
from serving.graphql.described import describe, describe_query
from serving.graphql.limits import extensions
from serving.request import answer_schema
from serving.request.answer import Answer, DetailedRecommendation
from serving.request.descriptions import PopularRequest, SimilarItemsRequest
from serving.request.requests import MAX_BATCH, MAX_COUNT, BatchRequest, Filters, RecommendRequest, first_error

SCOPES = ("all", "category", "brand", "country")


@strawberry.type(name="Reason")
class ReasonType:
    """Why an item is in the answer: a code and arguments for programs, a sentence for people."""

    code: str
    args: JSON
    text: str


@strawberry.type(name="Recommendation")
class RecommendationType:
    """One item of an answer."""

    item: str
    title: str
    score: float
    source: str
    reason: ReasonType
    rules: list[str]
    contributions: JSON
    fields: JSON | None


@strawberry.type(name="RuleTrace")
class RuleTraceType:
    """What one rule did to an answer."""

    rule: str
    action: str
    effect: str
    items: list[str]


@strawberry.type(name="Answer")
class AnswerType:
    """An answer; `fallback` says where most of its items come from."""

    items: list[RecommendationType]
    request_id: str
    generation: str
    anchor: str | None
    fallback: str
    placement: str
    strategy: str
    rules_version: int
    attribution: str
    next_cursor: str | None
    skipped_sources: list[str]
    rules: list[RuleTraceType]
    milliseconds: float
    experiments: JSON


@strawberry.input(name="Filters")
class FiltersInput:
    """What an item must be."""

    category: str | None = None
    brands: list[str] = strawberry.field(default_factory=list)
    min_price: float | None = None
    max_price: float | None = None
    country: str | None = None
    where: str | None = None


@strawberry.input(name="Request")
class RequestInput:
    """A request for recommendations; nothing is required."""

    user: str | None = None
    session: str | None = None
    items: list[str] = strawberry.field(default_factory=list)
    placement: str | None = None
    strategy: str | None = None
    count: int | None = None
    exclude: list[str] = strawberry.field(default_factory=list)
    exclude_purchased: bool | None = None
    exclude_out_of_stock: bool | None = None
    repeat: str | None = None
    filters: FiltersInput | None = None
    country: str | None = None
    diversity: float | None = None
    diversity_method: str = "mmr"
    explore: int | None = None
    seed: int | None = None
    explain: bool = False
    cursor: str | None = None
    deadline_ms: float | None = None
    lang: str = "en"
    fields: list[str] | None = None
    experiments: JSON = strawberry.field(default_factory=dict)


def _given(answers: Sequence[Answer]) -> list[AnswerType]:
    """Count the answers of a call, and return them as the schema's types."""
    count_answers("graphql", answers)
    return [_typed(answer) for answer in answers]


def _typed(answer: Answer) -> AnswerType:
    items = [
        RecommendationType(
            item=one.item, title=one.title, score=one.score, source=one.source,
            reason=ReasonType(code=one.reason.code, args=JSON(one.reason.args), text=one.reason.text),
            rules=list(one.rules), contributions=JSON(list(one.contributions)),
            fields=JSON(one.fields) if isinstance(one, DetailedRecommendation) else None,
        )
        for one in answer.items
    ]  # fmt: skip
    return AnswerType(
        items=items, request_id=answer.request_id, generation=answer.generation, anchor=answer.anchor,
        fallback=answer.fallback, milliseconds=answer.milliseconds, placement=answer.placement,
        strategy=answer.strategy, rules_version=answer.rules_version, attribution=answer.attribution,
        next_cursor=answer.next_cursor, skipped_sources=answer.skipped_sources,
        rules=[RuleTraceType(**asdict(trace)) for trace in answer.rules],
        experiments=JSON(answer.experiments),
    )  # fmt: skip


def _admit(info: strawberry.Info, cost: int) -> None:
    """Raise Refused unless the caller may have the field, `cost` lists of it."""
    guard: Guard = info.context["guard"]
    access = GRAPHQL.get(info.field_name, HIGHEST)
    guard.admit(info.context["secret"], access.scopes, cost)


def _checked(info: strawberry.Info, asked: RequestInput, before: str = "") -> RecommendRequest:
    recommender: Recommender = info.context["recommender"]
    try:
        request = RecommendRequest.model_validate(asdict(asked))
        recommender.check(request)
    except ValidationError as error:
        field, message = first_error(error)
        raise BadRequest(f"{before}{field}", message) from None
    except BadRequest as error:
        raise BadRequest(f"{before}{error.field}", error.message) from None
    return request


def _count(count: int) -> int:
    if not 1 <= count <= MAX_COUNT:
        raise BadRequest("count", f"must be within 1 and {MAX_COUNT}")
    return count


@strawberry.type
class Query:
    """The queries; the service is in the context."""

    @strawberry.field
    async def recommend(
        self, info: strawberry.Info, user: str | None = None, session: str | None = None,
        items: list[str] | None = None, placement: str | None = None, strategy: str | None = None,
        count: int | None = None, exclude: list[str] | None = None, exclude_purchased: bool | None = None,
        exclude_out_of_stock: bool | None = None, repeat: str | None = None, filters: FiltersInput | None = None,
        country: str | None = None, diversity: float | None = None, diversity_method: str = "mmr",
        explore: int | None = None, seed: int | None = None, explain: bool = False, cursor: str | None = None,
        deadline_ms: float | None = None, lang: str = "en", fields: list[str] | None = None,
        experiments: JSON | None = None,
    ) -> AnswerType | None:  # fmt: skip
        """Items for a user, a session, items in context."""
        _admit(info, 1)
        asked = RequestInput(
            user=user, session=session, items=items or [], placement=placement, strategy=strategy, count=count,
            exclude=exclude or [], exclude_purchased=exclude_purchased, exclude_out_of_stock=exclude_out_of_stock,
            repeat=repeat, filters=filters, country=country, diversity=diversity, diversity_method=diversity_method,
            explore=explore, seed=seed, explain=explain, cursor=cursor, deadline_ms=deadline_ms, lang=lang,
            fields=fields, experiments=experiments or JSON({}),
        )  # fmt: skip
        batcher: MicroBatcher = info.context["batcher"]
        return _given([await batcher.recommend(_checked(info, asked))])[0]

    @strawberry.field
    async def recommend_batch(self, info: strawberry.Info, requests: list[RequestInput]) -> list[AnswerType] | None:
        """Many requests, answered together, in order."""
        _admit(info, len(requests))
        if not 1 <= len(requests) <= MAX_BATCH:
            raise BadRequest("requests", f"must hold 1 to {MAX_BATCH}")
        asked = [_checked(info, one, f"requests.{n}.") for n, one in enumerate(requests)]
        batcher: MicroBatcher = info.context["batcher"]
        return _given(await batcher.recommend_all(asked))

    @strawberry.field
    async def similar_items(
        self, info: strawberry.Info, item: str, count: int = 20, lang: str = "en", fields: list[str] | None = None
    ) -> AnswerType | None:
        """Items that occur together with one."""
        _admit(info, 1)
        recommender: Recommender = info.context["recommender"]
        await recommender.store.ready()
        return _given([recommender.similar_items(item, _count(count), now_ms(), lang, fields)])[0]

    @strawberry.field
    async def popular(
        self, info: strawberry.Info, scope: str = "all", name: str = "", count: int = 20, lang: str = "en",
        fields: list[str] | None = None,
    ) -> AnswerType | None:  # fmt: skip
        """The most popular items of the whole shop, a category, a brand or a country."""
        _admit(info, 1)
        if scope not in SCOPES:
            raise BadRequest("scope", f"must be one of {', '.join(SCOPES)}")
        if scope != "all" and not name:
            raise BadRequest("name", f"is needed for scope {scope}")
        recommender: Recommender = info.context["recommender"]
        if scope != "all":
            await recommender.store.ready()
        return _given([recommender.popular(scope, name, _count(count), now_ms(), lang, fields)])[0]


describe({
    ReasonType: answer_schema.Reason, RecommendationType: answer_schema.Recommendation,
    RuleTraceType: answer_schema.RuleTrace, AnswerType: answer_schema.Answer, FiltersInput: Filters,
    RequestInput: RecommendRequest,
})  # fmt: skip
describe_query(Query, {
    "recommend": RecommendRequest, "recommend_batch": BatchRequest, "similar_items": SimilarItemsRequest,
    "popular": PopularRequest,
})  # fmt: skip


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Log nothing here: callers' mistakes need no line, and ReadableErrors logs what failed inside."""


class _Router(GraphQLRouter[dict[str, Any], None]):
    async def run(self, *args: Any, **named: Any) -> Any:
        """Return the answer; what is no query is refused in the form of all errors, not as plain text."""
        try:
            return await super().run(*args, **named)
        except NoQuery as wrong:
            raise HTTPException(wrong.status_code, wrong.reason) from None

    def decode_json(self, data: str | bytes) -> object:
        try:
            found = orjson.loads(data)  # which bounds the depth
        except orjson.JSONDecodeError as wrong:
            try:
                found = json.loads(data)  # half an emoji is wrong in its field, which is then named, not in the JSON
            except RecursionError:
                raise wrong from None
        if not isinstance(found, dict | list):
            raise HTTPException(400, "the body must be an object")
        return found


def make_router(recommender: Recommender, batcher: MicroBatcher, guard: Guard) -> Any:
    """Return the router that serves queries; no page that loads scripts from elsewhere, no sockets, no batches."""

    async def context(request: Request) -> dict[str, Any]:
        secret = secret_of(request.headers.raw)
        return {"recommender": recommender, "batcher": batcher, "guard": guard, "secret": secret}

    schema = _Schema(Query, extensions=extensions())
    return _Router(schema, context_getter=context, graphql_ide=None, subscription_protocols=())
