"""Integer forward decay: sums that may be added in any order, and subtracted again.

An event of weight w at time t adds `round(w · 2^(BITS + x))`, where x is the
number of half-lives since its epoch began (forward decay: Cormode et al., ICDE
2009). An epoch lasts EPOCH_HALF_LIVES half-lives. A counter keeps the sum of its
newest epoch and of the one before; what is older weighs less than 2⁻¹⁶ and is
dropped. The state is therefore a function of the set of events, not of their order.
"""

import math

import numpy as np
import numpy.typing as npt

from schemas.uncounted import uncounted

BITS = 16
EPOCH_HALF_LIVES = 16
REFERENCE_MS = 1_577_836_800_000
"""2020-01-01: scores count half-lives from here, so that float32 keeps four decimals."""
NO_SCORE = np.float32(-1e30)


@uncounted()
def epoch_of(ts_ms: int, half_life_ms: int) -> int:
    """Return the number of the epoch that holds `ts_ms`.

    >>> epoch_of(16 * 1000, 1000)
    1
    """
    return ts_ms // (EPOCH_HALF_LIVES * half_life_ms)


@uncounted()
def forward_weight(weight: float, ts_ms: int, half_life_ms: int) -> int:
    """Return the integer an event of this weight adds to the sum of its epoch.

    >>> forward_weight(1.0, 0, 1000), forward_weight(1.0, 3000, 1000)
    (65536, 524288)
    """
    into_epoch = ts_ms - epoch_of(ts_ms, half_life_ms) * EPOCH_HALF_LIVES * half_life_ms
    return np.int64(np.rint(weight * 2.0 ** (BITS + into_epoch / half_life_ms)))


@uncounted()
def add(epochs: npt.NDArray[np.int32], sums: npt.NDArray[np.int64], which: int, epoch: int, amount: int) -> None:
    """Add `amount` of `epoch` to counter `which`: `epochs[which]`, `sums[which] = (newest, before)`."""
    newest = epochs[which]
    if epoch == newest:
        sums[which, 0] += amount
    elif epoch == newest + 1:
        sums[which, 1] = sums[which, 0]
        sums[which, 0] = amount
        epochs[which] = epoch
    elif epoch > newest:
        sums[which, 1] = 0
        sums[which, 0] = amount
        epochs[which] = epoch
    elif epoch == newest - 1:
        sums[which, 1] += amount


@uncounted()
def forward_score(epoch: int, newest: int, before: int, half_life_ms: int) -> np.float32:
    """Return log2 of the sum, in half-lives since REFERENCE_MS; NO_SCORE for an empty sum.

    Scores of one half-life compare at any time: all of them fade alike.
    """
    total = newest + before * 2.0**-EPOCH_HALF_LIVES
    if total <= 0.0:
        return NO_SCORE
    epoch_start = epoch * EPOCH_HALF_LIVES - REFERENCE_MS / half_life_ms
    return np.float32(math.log2(total) - BITS + epoch_start)


@uncounted()
def value_at(epoch: int, newest: int, before: int, half_life_ms: int, now_ms: int) -> float:
    """Return the decayed sum as of `now_ms`, in units of event weight.

    >>> value_at(0, 2 * 65536, 0, 1000, 1000)
    1.0
    """
    total = newest + before * 2.0**-EPOCH_HALF_LIVES
    return total * 2.0 ** (epoch * EPOCH_HALF_LIVES - now_ms / half_life_ms - BITS)
