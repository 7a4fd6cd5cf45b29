"""The largest of some values, without sorting them."""

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@numba.njit(cache=True)
def largest(values: npt.NDArray[np.float64], k: int, out: npt.NDArray[np.int64]) -> int:
    """Write the indexes of the `k` largest values into `out`, of equal ones the first; return how many they are."""
    n = len(values)
    if n <= k:
        for i in range(n):
            out[i] = i
        return n
    least, at = np.partition(values, n - k)[n - k], 0
    for i in range(n):
        if values[i] > least:
            out[at] = i
            at += 1
    for i in range(n):
        if at < k and values[i] == least:
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
