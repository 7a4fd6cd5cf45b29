"""What is wrong with a book of rules: all of it at once, each with its place and a way to put it right."""

from collections.abc import Sequence
from typing import NamedTuple

MOST_ERRORS = 100
"""Errors of one book that are shown; a book may have a thousand rules."""


Path = tuple[int | str, ...]
"""The place of a part of a book: keys and indices from the top."""


class BookError(NamedTuple):
    """One error: its line in the text (0: not known), the rule, placement or experiment, the field, what to do."""

    line: int
    rule: str
    field: str
    message: str

    def __str__(self) -> str:
        where = [f"line {self.line}" * bool(self.line), self.rule, self.field]
        return ", ".join(part for part in where if part) + f": {self.message}"


class BadBook(ValueError):
    """The text is no book of rules; `errors` has all that is wrong, `field` and `message` are of the first."""

    def __init__(self, field: str, message: str, errors: Sequence[BookError] = ()) -> None:
        self.errors = tuple(errors) or (BookError(0, "", field, message),)
        self.field, self.message = field, message
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"{self.errors[0]}{more}")


def bad_book(errors: Sequence[BookError]) -> BadBook:
    """Return the exception of several errors, in the order of the text."""
    ordered = sorted(errors, key=lambda error: error.line)[:MOST_ERRORS]
    first = ordered[0]
    return BadBook(".".join(part for part in (first.rule, first.field) if part) or "book", first.message, ordered)
