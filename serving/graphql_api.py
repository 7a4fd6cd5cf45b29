"""The GraphQL interface: the same service, the same answers."""

from dataclasses import asdict
from typing import Any

import strawberry
from graphql import GraphQLError
from pydantic import ValidationError
from strawberry.fastapi import GraphQLRouter
from strawberry.scalars import JSON

from serving.gather import Gather
from serving.requests import MAX_COUNT, Answer, RecommendRequest
from serving.service import Recommender
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


@strawberry.type(name="Answer")
class AnswerType:
    """An answer; `fallback` says how far down the ladder it came from."""

    items: list[RecommendationType]
    request_id: str
    generation: str
    anchor: str | None
    fallback: str
    milliseconds: float


@strawberry.input(name="Filters")
class FiltersInput:
    """What an item must be."""

    category: str | None = None
    brands: list[str] = strawberry.field(default_factory=list)
    min_price: float | None = None
    max_price: float | None = None


def _typed(answer: Answer) -> AnswerType:
    items = [
        RecommendationType(
            item=one.item, title=one.title, score=one.score, source=one.source,
            reason=ReasonType(code=one.reason.code, args=JSON(one.reason.args), text=one.reason.text),
        )
        for one in answer.items
    ]  # fmt: skip
    return AnswerType(
        items=items, request_id=answer.request_id, generation=answer.generation, anchor=answer.anchor,
        fallback=answer.fallback, milliseconds=answer.milliseconds,
    )  # fmt: skip


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
        items: list[str] | None = None, count: int | None = None, exclude: list[str] | None = None,
        exclude_purchased: bool | None = None, exclude_out_of_stock: bool | None = None, repeat: str = "allow",
        filters: FiltersInput | None = None, diversity: float = 0.0, diversity_method: str = "mmr", lang: str = "en",
    ) -> AnswerType:  # fmt: skip
        """Items for a user, a session, items in context."""
        try:
            asked = RecommendRequest.model_validate({
                "user": user, "session": session, "items": items or [], "count": count, "exclude": exclude or [],
                "exclude_purchased": exclude_purchased, "exclude_out_of_stock": exclude_out_of_stock,
                "repeat": repeat, "filters": asdict(filters) if filters else None, "diversity": diversity,
                "diversity_method": diversity_method, "lang": lang,
            })  # fmt: skip
        except ValidationError as error:
            first = error.errors()[0]
            raise GraphQLError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
        gather: Gather = info.context["gather"]
        return _typed(await gather.recommend(asked))

    @strawberry.field
    def similar_items(self, info: strawberry.Info, item: str, count: int = 20, lang: str = "en") -> AnswerType:
        """Items that occur together with one."""
        recommender: Recommender = info.context["recommender"]
        try:
            return _typed(recommender.similar_items(item, _count(count), lang))
        except StoreUnavailable:
            raise GraphQLError("the store is out of reach") from None

    @strawberry.field
    def popular(
        self, info: strawberry.Info, scope: str = "all", name: str = "", count: int = 20, lang: str = "en"
    ) -> AnswerType:
        """The heaviest items of all, a category, a brand or a country."""
        if scope not in SCOPES:
            raise GraphQLError(f"scope: must be one of {', '.join(SCOPES)}")
        if scope != "all" and not name:
            raise GraphQLError(f"name: is needed for scope {scope}")
        recommender: Recommender = info.context["recommender"]
        try:
            return _typed(recommender.popular(scope, name, _count(count), lang))
        except StoreUnavailable:
            raise GraphQLError("the store is out of reach") from None


def make_router(recommender: Recommender, gather: Gather) -> Any:
    """Return the router that serves queries by POST; no page that loads scripts from elsewhere."""

    async def context() -> dict[str, Any]:
        return {"recommender": recommender, "gather": gather}

    return GraphQLRouter(strawberry.Schema(Query), context_getter=context, graphql_ide=None)
