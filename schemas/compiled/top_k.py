"""The largest of some values, without sorting them."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@njit_no_refcount()
def largest(values: npt.NDArray[np.float64], k: int, out: npt.NDArray[np.int64]) -> int:
    """Write the indexes of the `k` largest of values >= 0 into `out`, of equal ones the first; return how many."""
    n = len(values)
    if n <= k:
        for i in range(n):
            out[i] = i
        return n
    # As whole numbers the bits of doubles >= 0 rise with them. The one that at most `k` exceed is found by halving:
    # counting takes four at a time, which costs less than putting anything in order.
    bits = values.view(np.int64)
    below, least = -1, 0
    for i in range(n):
        least = max(least, int(bits[i]))
    while least - below > 1:
        middle = below + (least - below) // 2
        above = 0
        for i in range(n):
            above += bits[i] > middle
        if above > k:
            below = middle
        else:
            least = middle
            if above == k:
                break
    at = 0
    for i in range(n):
        if bits[i] > least:
            out[at] = i
            at += 1
    for i in range(n):
        if at < k and bits[i] == least:
            out[at] = i
            at += 1
    return at


def largest_first(scores: Floats, k: int) -> npt.NDArray[np.int64]:
    """Return the indexes of the `k` largest scores, largest first; of equal ones the first."""
    best = np.arange(len(scores))
    if len(scores) > k:
        least = -np.partition(-scores, k - 1)[k - 1]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        best = np.concatenate((above, equal[: k - len(above)]))
    return best[np.argsort(-scores[best], kind="stable")]
