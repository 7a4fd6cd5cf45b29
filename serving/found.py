"""Scratch for the candidates of one search after the other: nothing is cleared in between."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.uncounted import uncounted
from serving.forest import N_PAIRS

INDEX_BITS = 12
MAX_FOUND = 1 << INDEX_BITS
"""More than a session leads to, or two steps from an item do."""
TABLE = 2 * MAX_FOUND
BY_SECOND, BY_POPULARITY, BY_REPEAT = 3, 4, 5
"""Why an item is in the list: ADJ, FAR, BWD from a seed, or one of these."""

FOUND_DTYPE = np.dtype(
    [
        ("item", np.uint64),
        ("direct", np.float64),  # Σ weight · component over the pair components
        ("base", np.float64),
        ("second", np.float64, 2),
        ("best", np.float64),  # the largest weighted contribution, and where it came from
        ("slot", np.int64),  # of the item's row, ABSENT where there is none
        ("hits", np.int32),
        ("best_seed", np.int32),
        ("best_kind", np.int32),
        ("pairs", np.float32, N_PAIRS),  # for trees: shares by seed and kind
    ],
    align=True,
)


class Found(NamedTuple):
    """Candidates in the order they were found, and a table that finds them by item."""

    search: npt.NDArray[np.int64]  # (1,): number of the search under way
    table: npt.NDArray[np.int64]  # search << INDEX_BITS | index
    of: npt.NDArray[np.void]  # (MAX_FOUND,) of FOUND_DTYPE
    worth: npt.NDArray[np.float64]  # (MAX_FOUND,): room for what decides who is chosen


def new_found() -> Found:
    return Found(
        np.zeros(1, np.int64), np.zeros(TABLE, np.int64), np.zeros(MAX_FOUND, FOUND_DTYPE), np.zeros(MAX_FOUND)
    )


@uncounted()
def begin_search(found: Found) -> None:
    """Forget the candidates of the search before."""
    found.search[0] += 1


@uncounted()
def place(found: Found, n: int, item: np.uint64) -> tuple[int, int]:
    """Return (index of the candidate, candidates so far)."""
    mask, search = np.uint64(TABLE - 1), found.search[0]
    at = item & mask
    while found.table[at] >> INDEX_BITS == search:
        index = found.table[at] & (MAX_FOUND - 1)
        if found.of[index].item == item:
            return index, n
        at = (at + np.uint64(1)) & mask
    found.table[at] = search << INDEX_BITS | n
    found.of[n].item = item
    found.of[n].direct = found.of[n].base = found.of[n].best = 0.0
    found.of[n].second[0] = found.of[n].second[1] = 0.0
    found.of[n].hits = found.of[n].best_seed = 0
    found.of[n].best_kind = BY_POPULARITY
    found.of[n].pairs[:] = np.float32(0.0)
    return n, n + 1
