"""What fields of requests and answers mean: the one place for REST, GraphQL and the comments of the .proto.

`MESSAGES` has a model for each message of gRPC; the models' fields carry the descriptions.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from serving.request import answer_schema
from serving.request.product_fields import ProductField
from serving.request.requests import MAX_COUNT, BatchRequest, Filters, Id, RecommendRequest


class SimilarItemsRequest(BaseModel):
    """A request for the items that occur together with one."""

    item: Id = Field(description="Item id")
    count: int = Field(20, ge=1, le=MAX_COUNT, description="How many items; 20 by default")
    lang: Literal["en", "de"] = Field("en", description="Language of the reasons")
    fields: tuple[ProductField, ...] = Field(
        (), description="Product fields that items carry; those of the placement home, if none are named"
    )


class PopularRequest(BaseModel):
    """A request for the most popular items of the shop, a category, a brand or a country."""

    scope: Literal["all", "category", "brand", "country"] = Field(
        "all", description="Popular where: `all` (the default), `category` and those below it, `brand`, or `country`"
    )
    name: str = Field("", max_length=256, description="Which category, brand or country")
    count: int = Field(20, ge=1, le=MAX_COUNT, description="How many items; 20 by default")
    lang: Literal["en", "de"] = Field("en", description="Language of the reasons")
    fields: tuple[ProductField, ...] = Field(
        (), description="Product fields that items carry; those of the placement home, if none are named"
    )


MESSAGES: Mapping[str, type[BaseModel]] = {
    model.__name__: model
    for model in (
        RecommendRequest, BatchRequest, Filters, SimilarItemsRequest, PopularRequest, answer_schema.Reason,
        answer_schema.Contribution, answer_schema.Recommendation, answer_schema.RuleTrace, answer_schema.Answer,
        answer_schema.BatchAnswer,
    )
}  # fmt: skip


def meaning(model: type[BaseModel], field: str) -> str:
    """Return what a field means.

    >>> meaning(PopularRequest, "name")
    'Which category, brand or country'
    """
    return model.model_fields[field].description or ""
