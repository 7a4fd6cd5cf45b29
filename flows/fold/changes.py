"""The result of folding a batch: rows to commit, and counts of its events."""

from dataclasses import dataclass, field

from state.store.contract import Positions
from state.store.row_block import RowSet


@dataclass(frozen=True)
class FoldStats:
    """Counts of a batch in interaction rows: each order line counts one."""

    n_events: int = 0
    n_duplicates: int = 0
    n_late: int = 0
    n_products: int = 0
    n_rows: int = 0
    cache: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rows (found, read from the store) by table."""
    n_erased: int = 0
    """Events that were skipped because their user was erased later; not in `n_events`."""

    def __add__(self, other: "FoldStats") -> "FoldStats":
        cache = {
            table: (found + other.cache.get(table, (0, 0))[0], read + other.cache.get(table, (0, 0))[1])
            for table, (found, read) in (self.cache or dict.fromkeys(other.cache, (0, 0))).items()
        }
        return FoldStats(
            self.n_events + other.n_events, self.n_duplicates + other.n_duplicates, self.n_late + other.n_late,
            self.n_products + other.n_products, self.n_rows + other.n_rows, cache, self.n_erased + other.n_erased,
        )  # fmt: skip


@dataclass(frozen=True)
class Changes:
    """Absolute rows that belong to `new` positions; commit them against `expected`.

    `in_parts`: each row is true by itself, and what a crash leaves out is written again: refresh them.
    """

    expected: Positions
    new: Positions
    rows: RowSet
    stats: FoldStats = FoldStats()
    in_parts: bool = False
    erased: frozenset[int] = frozenset()
    """Users whose rows these changes delete because they were erased, by id hash."""
