"""Integer forward decay: sums that may be added in any order, and subtracted again.

An event of weight w at time t adds `round(w · 2^(S + x))`, where x is the
number of half-lives since its epoch began (forward decay: Cormode et al., ICDE
2009). An epoch lasts EPOCH_HALF_LIVES half-lives. A counter keeps the sum of its
newest epoch and of the one before; what is older weighs less than 2⁻¹⁶ and is
dropped. The state is therefore a function of the set of events, not of their order.

How much fits. x < 16, so an event adds less than |w| · 2^(S + 16), and events of a
total weight W (each by its size, none forgotten) add less than W · 2^(S + 16) to an
epoch. A sum is exact while that is below 2^62 (MOST_SUM), for any W below 2^(46 - S).

S (`scale_bits`) is BITS = 16 up to half-lives of a week: W below 2^30, all of it at the
last moment of an epoch. What comes evenly, R a day, adds at most R · HL / ln 2 · 2^(S + 16)
to an epoch, HL being the half-life in days: at a week R may be 106 million a day for
years, at a day 744 million. Each doubling of the half-life above a week takes a bit from
S, so that R never falls below 106 million a day; at ten years, the longest half-life, S is 6
and W below 2^40: 10^10 events of the largest weight that the settings allow, 100, at one
moment. (With S = 16 everywhere 17 million a day overflowed 64 bits at 90 days.)

Settings bound no rate. A stream that brings more leaves the sum at ±MOST_SUM: it never
wraps round, and is no longer exact. One event adds 250 · 2^32 < 2^40 at most (a rating is
up to 2.5 times its weight), so that no addition leaves 64 bits.
"""

import math

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

BITS = 16
EPOCH_HALF_LIVES = 16
WEEK_MS = 7 * 86_400_000
MOST_SUM = 2**62 - 1
REFERENCE_MS = 1_577_836_800_000
"""2020-01-01: scores count half-lives from here, so that float32 keeps four decimals."""
NO_SCORE = np.float32(-1e30)

Epochs = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@njit_no_refcount()
def epoch_of(ts_ms: int, half_life_ms: int) -> int:
    """Return the number of the epoch that holds `ts_ms`.

    >>> epoch_of(16 * 1000, 1000)
    1
    """
    return ts_ms // (EPOCH_HALF_LIVES * half_life_ms)


@njit_no_refcount()
def scale_bits(half_life_ms: int) -> int:
    """Return S: BITS up to half-lives of a week, one less for every doubling above.

    >>> scale_bits(WEEK_MS), scale_bits(WEEK_MS + 1), scale_bits(2 * WEEK_MS), scale_bits(521 * WEEK_MS)
    (16, 15, 15, 6)
    """
    bits, longest = BITS, WEEK_MS
    while half_life_ms > longest and bits > 0:
        longest *= 2
        bits -= 1
    return bits


@njit_no_refcount()
def plus(total: int, amount: int) -> int:
    """Return the sum, ±MOST_SUM where it would be larger; `amount` is at most MOST_SUM.

    >>> plus(MOST_SUM - 1, 5) == MOST_SUM, plus(3, -5)
    (True, -2)
    """
    return min(max(total + amount, -MOST_SUM), MOST_SUM)


@njit_no_refcount()
def forward_weight(weight: float, ts_ms: int, half_life_ms: int) -> int:
    """Return the integer an event of this weight adds to the sum of its epoch.

    >>> forward_weight(1.0, 0, 1000), forward_weight(1.0, 3000, 1000)
    (65536, 524288)
    """
    into_epoch = ts_ms - epoch_of(ts_ms, half_life_ms) * EPOCH_HALF_LIVES * half_life_ms
    return np.int64(np.rint(weight * 2.0 ** (scale_bits(half_life_ms) + into_epoch / half_life_ms)))  # type: ignore[return-value]


@njit_no_refcount()
def add(epochs: Epochs, sums: npt.NDArray[np.int64], which: int, epoch: int, amount: int) -> None:
    """Add `amount` of `epoch` to counter `which`: `epochs[which]`, `sums[which] = (newest, before)`."""
    newest = epochs[which]
    if epoch == newest:
        sums[which, 0] = plus(sums[which, 0], amount)
    elif epoch == newest + 1:
        sums[which, 1] = sums[which, 0]
        sums[which, 0] = amount
        epochs[which] = epoch
    elif epoch > newest:
        sums[which, 1] = 0
        sums[which, 0] = amount
        epochs[which] = epoch
    elif epoch == newest - 1:
        sums[which, 1] = plus(sums[which, 1], amount)


@njit_no_refcount()
def merge(epochs: Epochs, sums: npt.NDArray[np.int64], which: int, epoch: int, newest: int, before: int) -> None:
    """Add another counter, whose newest epoch is `epoch`, to counter `which`, as if all events had come here.

    >>> epochs, sums = np.array([7], np.int32), np.array([[5, 3]])
    >>> merge(epochs, sums, 0, 8, 10, 20)
    >>> epochs.tolist(), sums.tolist()
    ([8], [[10, 25]])
    """
    add(epochs, sums, which, epoch, newest)
    add(epochs, sums, which, epoch - 1, before)


@njit_no_refcount()
def forward_score(epoch: int, newest: int, before: int, half_life_ms: int) -> np.float32:
    """Return log2 of the sum, in half-lives since REFERENCE_MS; NO_SCORE for an empty sum.

    Scores of one half-life compare at any time: all of them fade alike.
    """
    total = newest + before * 2.0**-EPOCH_HALF_LIVES
    if total <= 0.0:
        return NO_SCORE
    epoch_start = epoch * EPOCH_HALF_LIVES - REFERENCE_MS / half_life_ms
    return np.float32(math.log2(total) - scale_bits(half_life_ms) + epoch_start)


@njit_no_refcount()
def value_at(epoch: int, newest: int, before: int, half_life_ms: int, now_ms: int) -> float:
    """Return the decayed sum as of `now_ms`, in units of event weight.

    >>> value_at(0, 2 * 65536, 0, 1000, 1000)
    1.0
    """
    total = newest + before * 2.0**-EPOCH_HALF_LIVES
    return total * 2.0 ** (epoch * EPOCH_HALF_LIVES - now_ms / half_life_ms - scale_bits(half_life_ms))  # type: ignore[no-any-return]
