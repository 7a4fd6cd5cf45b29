"""Books of rules: what the routes under `/v1/rules` answer."""

from typing import Literal

from pydantic import BaseModel, Field

from serving.request.answer_schema import Answer
from serving.request.requests import RecommendRequest
from serving.rules.model import Book, Placement

AUTHOR = Field(description="Who put it there", examples=["eva"])
NOTE = Field(description="What the author says of it", examples=["clay week"])
AT_MS = Field(description="When it was put, milliseconds since 1970 UTC", examples=[1796070000000])


class LiveBook(BaseModel):
    """The live book of rules. Author, note and time are absent where none has been put."""

    version: int = Field(description="Its version; 0: none has been put", ge=0, examples=[4])
    book: Book = Field(description="The book, without what is as by default")
    author: str = Field(default_factory=str, description="Who put it there", examples=["eva"])
    note: str = Field(default_factory=str, description="What the author says of it", examples=["clay week"])
    at_ms: int = Field(
        default_factory=int, description="When it was put, milliseconds since 1970 UTC", examples=[1796070000000]
    )
    all_placements: dict[str, Placement] = Field(description="All placements by name, built-in ones among them")
    skipped_rules: dict[str, str] = Field(description="Rules that are left out because they fail, and why")
    missing: bool = Field(
        description="Whether Redis and the log have lost the book, and the server goes on with the last known one"
    )


class BookVersion(BaseModel):
    """One version of the book."""

    version: int = Field(description="Its number", ge=1, examples=[4])
    book: Book = Field(description="The book, without what is as by default")
    author: str = AUTHOR
    note: str = NOTE
    at_ms: int = AT_MS


class BookHistory(BaseModel):
    """The newest versions of the book."""

    versions: list[BookVersion] = Field(description="Newest first, at most 50")


class Finding(BaseModel):
    """One thing that contradicts itself, or is without effect."""

    rule: str = Field(description="Id of the rule or experiment", examples=["clay-week"])
    level: Literal["error", "warning"] = Field(
        description="`error`: it contradicts itself, and is not put without `force`; `warning`: it is without effect"
    )
    message: str = Field(description="What is odd, and what may be meant", examples=["no item passes 'price < 0'"])
    field: str = Field(description="The field at fault, empty where it is none", examples=["where"])
    line: int = Field(description="Line where the rule begins, from 1; 0: not known", ge=0, examples=[2])


class BookPut(BaseModel):
    """The book is live."""

    version: int = Field(description="Its version", ge=1, examples=[4])
    warnings: list[Finding] = Field(description="What is odd about it; with `force`, errors among them")


class BookRead(BaseModel):
    """The book, as it is understood."""

    book: Book = Field(description="The book, without what is as by default")


class Findings(BaseModel):
    """What is odd about a book."""

    findings: list[Finding] = Field(description="Rule by rule")


class PreviewRequest(BaseModel):
    """A request to be answered by the live book and by another."""

    book: Book = Field(default_factory=Book, description="The other book; an empty one by default")
    request: RecommendRequest = Field(
        default_factory=RecommendRequest, description="The request; `explain` is always on"
    )
    at: str = Field(
        "now", description="For which time: `now`, or ISO 8601, UTC unless it says", examples=["2026-11-01T12:00:00Z"]
    )


class Preview(BaseModel):
    """The answers by both books, with the rules' traces."""

    before: Answer = Field(description="By the live book")
    after: Answer = Field(description="By the other book")
    skipped_rules: dict[str, str] = Field(description="Rules of the other book that fail, and why")
