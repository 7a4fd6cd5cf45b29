"""Scratch memory for the candidates of one search after the other; nothing is cleared in between."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.vector_math import bits_of, of_bits

INDEX_BITS = 12
MAX_CANDIDATES = 1 << INDEX_BITS
"""More than a session leads to, or two steps from an item do."""
TABLE = MAX_CANDIDATES
MAX_EPOCHS = 1 << 31 - INDEX_BITS
"""As many have a number of their own in the table."""


class CandidateTable(NamedTuple):
    """Items in the order they were found, and a table that finds them again."""

    epoch: npt.NDArray[np.int64]  # (1,): number of the search under way, below MAX_EPOCHS
    table: npt.NDArray[np.int32]  # search << INDEX_BITS | index
    item: npt.NDArray[np.uint64]  # (MAX_CANDIDATES,)
    score: npt.NDArray[np.float64]  # (MAX_CANDIDATES,): what decides who is chosen


@njit()
def new_candidate_table() -> CandidateTable:
    """Return room for searches."""
    return CandidateTable(
        np.zeros(1, np.int64), np.zeros(TABLE, np.int32), np.zeros(MAX_CANDIDATES, np.uint64), np.zeros(MAX_CANDIDATES)
    )


@njit_no_refcount()
def begin(found: CandidateTable) -> None:
    """Forget the items of the search before."""
    found.epoch[0] += 1
    if found.epoch[0] == MAX_EPOCHS:
        found.table[:] = 0
        found.epoch[0] = 1


@njit_no_refcount()
def accumulate(found: CandidateTable, n: int, item: np.uint64, score: float) -> tuple[int, int]:
    """Return (index of the item, items so far); it is worth that much more."""
    # Whether an item was found before is a coin's toss, which a branch would lose half of the time: `known` is a mask.
    last, epoch = np.uint64(TABLE - 1), found.epoch[0]
    at = item & last
    known, index = _entry(found, at, epoch)
    while known & np.int64(found.item[index] ^ item) != 0:  # rarely
        at = (at + np.uint64(1)) & last
        known, index = _entry(found, at, epoch)
    index = known & index | ~known & n
    found.table[at], found.item[np.uint64(index)] = epoch << INDEX_BITS | index, item
    found.score[np.uint64(index)] = of_bits(known & bits_of(found.score[np.uint64(index)])) + score  # type: ignore[call-arg]
    return index, n + 1 + known


@njit_no_refcount()
def _entry(found: CandidateTable, at: np.uint64, epoch: int) -> tuple[int, int]:
    """Return (all bits if this search wrote it, else none; the index it holds)."""
    entry: Any = np.int64(found.table[at])
    return ((entry >> INDEX_BITS ^ epoch) - 1) >> 63, entry & (MAX_CANDIDATES - 1)
