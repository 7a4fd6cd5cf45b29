"""The origin of a candidate: the largest term of its score, and the item of the session it came from."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from serving.scoring.features import (
    POPULARITY_ALL_TIME,
    POPULARITY_SHORT,
    SECOND_CURRENT,
    SECOND_EARLIER,
    Features,
)
from serving.scoring.mixture import Terms, largest_pair
from serving.scoring.parameters import MixtureParams

BY_SECOND, BY_POPULARITY, BY_REPEAT = 3, 4, 5
"""Why an item is in the list: ADJ, FAR, BWD from a seed, or one of these."""

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


@njit_no_refcount()
def write_origins(
    features: Features, terms: Terms, n: int, m: int, p: MixtureParams, distinct: Uint64s, seeds: Uint64s,
    reason: Int64s,
) -> None:  # fmt: skip
    """Write each candidate's reason and its seed, the item of the session (`distinct[:m]`) that it came from; 0: none.

    A repeat decides where its odds exceed the novel probability, or where no other item leads to one of the session;
    else the largest weighted share of `mixture.score`. Second-order shares of the two items before the current one are
    summed, so these have a seed only where there is one such item.
    """
    column = features.column
    for i in range(n):
        current, earlier = p.second[0] * column[SECOND_CURRENT, i], p.second[1] * column[SECOND_EARLIER, i]
        second = current + earlier
        popularity = (
            p.popularity[0] * column[POPULARITY_SHORT, i] + p.popularity[1] * column[POPULARITY_ALL_TIME, i]
        )  # fmt: skip
        best, rank, kind = largest_pair(terms.best_pair[i])
        if terms.best_pair[i] == 0:
            kind = BY_POPULARITY
        reason[i], seeds[i] = kind, distinct[rank] if m > 0 else np.uint64(0)
        if second > best and second > popularity:
            reason[i], seeds[i] = BY_SECOND, distinct[0]
            if earlier > current:
                seeds[i] = distinct[1] if m == 2 else np.uint64(0)
        elif popularity > best:
            reason[i] = BY_POPULARITY
        if i < m and (terms.odds[i] > terms.novel[i] or reason[i] == BY_POPULARITY):
            reason[i], seeds[i] = BY_REPEAT, distinct[i]
