"""GraphQL over HTTP."""

from typing import Any

from pydantic import BaseModel, Field


class GraphQLRequest(BaseModel):
    """A query."""

    query: str = Field(description="GraphQL", examples=['{ recommend(user: "ann", count: 3) { items { item } } }'])
    variables: dict[str, Any] | None = Field(None, description="Values of its variables")
    operationName: str | None = Field(None, description="Which of its operations to run")


class GraphQLAnswer(BaseModel):
    """The answer to a query; fields that failed are null and named in `errors`."""

    data: dict[str, Any] | None = Field(None, description="Fields that were asked for")
    errors: list[dict[str, Any]] | None = Field(None, description="What went wrong, with `extensions.code`")
    extensions: dict[str, Any] | None = Field(None, description="Not used")
