"""What was understood of a file, and what could not be read: by count, with an example and its line."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_REASONS = 50
_AHEAD = re.compile(r"is [\d,]+ s ahead of the clock")
FIRST = 10


@dataclass
class Refusal:
    """Rows that are refused for one reason."""

    n: int
    line: int
    """Of the first one."""
    example: str


@dataclass
class Findings:
    """What a file holds."""

    file: str
    format: str
    details: dict[str, str]
    preset: str = ""
    what: str = ""
    guessed: bool = False
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    row_word: str = "line"
    n_rows: int = 0
    n_events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    left_aside: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(type, field) that its type does not have."""
    n_about: int = 0
    """Products that rows of events describe."""
    first_ms: int | None = None
    last_ms: int | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, reason: str, line: int, example: str) -> None:
        """Count a row that is refused; beyond MOST_REASONS reasons all others are one."""
        reason = _AHEAD.sub("is ahead of the clock", reason.partition("; got ")[0])[:160]
        if reason not in self.refused and len(self.refused) >= MOST_REASONS:
            reason = "other reasons"
        if reason in self.refused:
            self.refused[reason].n += 1
        else:
            self.refused[reason] = Refusal(1, line, example)

    def saw(self, ts_ms: int | None) -> None:
        """Widen the range of times."""
        if ts_ms is not None:
            self.first_ms = ts_ms if self.first_ms is None else min(self.first_ms, ts_ms)
            self.last_ms = ts_ms if self.last_ms is None else max(self.last_ms, ts_ms)

    @property
    def n_refused(self) -> int:
        """Rows that are refused."""
        return sum(refusal.n for refusal in self.refused.values())

    def as_json(self) -> dict[str, Any]:
        """Return everything for machines."""
        return {
            "file": self.file,
            "format": self.format,
            **self.details,
            "preset": self.preset or None,
            "columns": {name: "|".join(columns) for name, columns in self.columns.items()},
            "unused_columns": self.unused,
            "rows": self.n_rows,
            "events": self.n_events,
            "kinds": dict(self.kinds),
            "products_described": self.n_about,
            "left_aside": dict(self.left_aside),
            "dropped_fields": {f"{kind}.{name}": n for (kind, name), n in self.dropped.items()},
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "refused": {reason: one.n for reason, one in self.refused.items()},
            "refused_examples": {
                reason: {"line": one.line, "text": one.example} for reason, one in self.refused.items()
            },
            "first": self.first,
        }
