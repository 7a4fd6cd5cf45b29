"""The errors of REST: one form, with more of what is wrong where there is more to say."""

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What is wrong."""

    field: str = Field(description="The field that is wrong, empty where it is none", examples=["count"])
    message: str = Field(
        description="What is wrong with it, in words", examples=["must be less than or equal to 200; got 300"]
    )


class Error(BaseModel):
    """The form of all errors."""

    error: ErrorDetail = Field(description="What is wrong; the first thing where several are")


class EventError(BaseModel):
    """Why one event of a call is refused."""

    index: int = Field(description="Place of the event in the call, from 0", ge=0, examples=[1])
    field: str = Field(description="Its field that is wrong, empty where it is the whole event", examples=["stars"])
    message: str = Field(description="What is wrong with it, in words", examples=["is needed"])


class EventsRefused(Error):
    """Nothing of the call is taken; each event at fault is named."""

    errors: list[EventError] = Field(
        default_factory=list,
        max_length=100,
        description="The first 100 events at fault; absent where it is the call itself",
    )
    n_errors: int = Field(default_factory=int, ge=0, description="How many events are at fault", examples=[1])


class EventsUnavailable(Error):
    """Nothing is known to be taken: send the events again, with these ids, and each counts once."""

    event_ids: list[str | None] = Field(
        default_factory=list,
        description="Ids of the events, in order; null for products. Absent where the call was not read",
        examples=[["3387799063dc52598a5f6a200a277f68", None]],
    )


class BookFault(BaseModel):
    """One thing that is wrong with a book."""

    line: int = Field(description="Line of the text, from 1; 0: not known", ge=0, examples=[3])
    rule: str = Field(description="Rule, placement or experiment; empty: the whole book", examples=["rule clay-week"])
    field: str = Field(description="Its field that is wrong, empty where it is none", examples=["factor"])
    message: str = Field(
        description="What is wrong, what is allowed, an example of the right form, and what may be meant",
        examples=["there is no such field; did you mean factor?"],
    )


class BookRefused(Error):
    """The book is refused, with all that is wrong with it."""

    errors: list[BookFault] = Field(
        default_factory=list,
        max_length=100,
        description="In the order of the text; absent where it is no fault of the book's",
    )


class BookConflicted(Error):
    """The live book is not the one that this one was made from; nothing was put."""

    version: int = Field(description="Version of the live book", ge=0, examples=[4])
