"""What every reader returns: the columns of a file, and its rows with the lines they stand in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Unreadable(NamedTuple):
    """A row that the reader could not take apart, and why."""

    reason: str
    text: str


Row = tuple[int, dict[str, Any] | Unreadable]
"""(line or row number in the file, from 1; the cells by column)."""


@dataclass(frozen=True)
class Source:
    """A file that can be read from its beginning any number of times."""

    format: str
    """As a person calls it: CSV, Excel, Parquet, JSON lines …"""
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    done: Callable[[], float]
    """Returns the share of the file that the running read has passed, 0 to 1."""
    details: dict[str, str] = field(default_factory=dict)
    """What else was found out: encoding, separator, sheet …"""
    separator: str = ","
    row_word: str = "line"
    """What `Row` numbers count."""
    has_header: bool = True
