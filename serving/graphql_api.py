"""The GraphQL interface: the same service, the same answers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import strawberry
from graphql import GraphQLError
from pydantic import ValidationError
from strawberry.fastapi import GraphQLRouter
from strawberry.scalars import JSON

from serving.answer_counts import count as count_answers
from serving.clock import now_ms
from serving.gather import Gather, Overloaded, RequestFailed
from serving.requests import MAX_BATCH, MAX_COUNT, Answer, RecommendRequest, first_error
from serving.service import BadRequest, Recommender
from state.store import StoreUnavailable

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


@strawberry.type(name="RuleTrace")
class RuleTraceType:
    """What one rule did to an answer."""

    rule: str
    action: str
    effect: str
    items: list[str]


@strawberry.type(name="Answer")
class AnswerType:
    """An answer; `fallback` says how far down the ladder it came from."""

    items: list[RecommendationType]
    request_id: str
    generation: str
    anchor: str | None
    fallback: str
    placement: str
    strategy: str
    rules_version: int
    attribution: str
    next: str | None
    left_out: list[str]
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
    experiments: JSON = strawberry.field(default_factory=dict)


async def _answers(info: strawberry.Info, asked: list[RecommendRequest]) -> Sequence[Answer]:
    """Return the answers to requests. Raises GraphQLError."""
    gather: Gather = info.context["gather"]
    try:
        return await gather.recommend_all(asked)
    except (StoreUnavailable, Overloaded, RequestFailed) as error:
        raise _said(error) from None


def _said(error: Exception) -> GraphQLError:
    """Return an error as a caller may read it."""
    return GraphQLError("the store is out of reach" if isinstance(error, StoreUnavailable) else str(error))


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
        )
        for one in answer.items
    ]  # fmt: skip
    return AnswerType(
        items=items, request_id=answer.request_id, generation=answer.generation, anchor=answer.anchor,
        fallback=answer.fallback, milliseconds=answer.milliseconds, placement=answer.placement,
        strategy=answer.strategy, rules_version=answer.rules_version, attribution=answer.attribution,
        next=answer.next, left_out=answer.left_out, rules=[RuleTraceType(**asdict(trace)) for trace in answer.rules],
        experiments=JSON(answer.experiments),
    )  # fmt: skip


def _checked(info: strawberry.Info, asked: RequestInput, before: str = "") -> RecommendRequest:
    recommender: Recommender = info.context["recommender"]
    try:
        request = RecommendRequest.model_validate(asdict(asked))
        recommender.check(request)
    except ValidationError as error:
        field, said = first_error(error)
        raise GraphQLError(f"{before}{field}: {said}") from None
    except BadRequest as error:
        raise GraphQLError(f"{before}{error}") from None
    return request


def _count(count: int) -> int:
    if not 1 <= count <= MAX_COUNT:
        raise GraphQLError(f"count: must be within 1 and {MAX_COUNT}")
    return count


@strawberry.type
class Query:
    """What can be asked; the service is in the context."""

    @strawberry.field
    async def recommend(
        self, info: strawberry.Info, user: str | None = None, session: str | None = None,
        items: list[str] | None = None, placement: str | None = None, strategy: str | None = None,
        count: int | None = None, exclude: list[str] | None = None, exclude_purchased: bool | None = None,
        exclude_out_of_stock: bool | None = None, repeat: str | None = None, filters: FiltersInput | None = None,
        country: str | None = None, diversity: float | None = None, diversity_method: str = "mmr",
        explore: int | None = None, seed: int | None = None, explain: bool = False, cursor: str | None = None,
        deadline_ms: float | None = None, lang: str = "en", experiments: JSON | None = None,
    ) -> AnswerType:  # fmt: skip
        """Items for a user, a session, items in context."""
        asked = RequestInput(
            user=user, session=session, items=items or [], placement=placement, strategy=strategy, count=count,
            exclude=exclude or [], exclude_purchased=exclude_purchased, exclude_out_of_stock=exclude_out_of_stock,
            repeat=repeat, filters=filters, country=country, diversity=diversity, diversity_method=diversity_method,
            explore=explore, seed=seed, explain=explain, cursor=cursor, deadline_ms=deadline_ms, lang=lang,
            experiments=experiments or JSON({}),
        )  # fmt: skip
        return _given(await _answers(info, [_checked(info, asked)]))[0]

    @strawberry.field
    async def recommend_batch(self, info: strawberry.Info, requests: list[RequestInput]) -> list[AnswerType]:
        """Many requests, answered together, in order."""
        if not 1 <= len(requests) <= MAX_BATCH:
            raise GraphQLError(f"requests: must hold 1 to {MAX_BATCH}")
        asked = [_checked(info, one, f"requests.{n}.") for n, one in enumerate(requests)]
        return _given(await _answers(info, asked))

    @strawberry.field
    async def similar_items(self, info: strawberry.Info, item: str, count: int = 20, lang: str = "en") -> AnswerType:
        """Items that occur together with one."""
        recommender: Recommender = info.context["recommender"]
        try:
            await recommender.store.heard()
            return _given([recommender.similar_items(item, _count(count), now_ms(), lang)])[0]
        except (StoreUnavailable, BadRequest) as error:
            raise _said(error) from None

    @strawberry.field
    async def popular(
        self, info: strawberry.Info, scope: str = "all", name: str = "", count: int = 20, lang: str = "en"
    ) -> AnswerType:
        """The heaviest items of all, a category, a brand or a country."""
        if scope not in SCOPES:
            raise GraphQLError(f"scope: must be one of {', '.join(SCOPES)}")
        if scope != "all" and not name:
            raise GraphQLError(f"name: is needed for scope {scope}")
        recommender: Recommender = info.context["recommender"]
        try:
            if scope != "all":
                await recommender.store.heard()
            return _given([recommender.popular(scope, name, _count(count), now_ms(), lang)])[0]
        except (StoreUnavailable, BadRequest) as error:
            raise _said(error) from None


def make_router(recommender: Recommender, gather: Gather) -> Any:
    """Return the router that serves queries by POST; no page that loads scripts from elsewhere."""

    async def context() -> dict[str, Any]:
        return {"recommender": recommender, "gather": gather}

    return GraphQLRouter(strawberry.Schema(Query), context_getter=context, graphql_ide=None)
