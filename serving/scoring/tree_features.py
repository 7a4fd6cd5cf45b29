"""The features of trees, as float32: those of the likeliest candidates, and the mixture's scores of them.

Serving (`serving.scoring.tree_ensemble`) and training (`batch.training.ranker`) both call `write_tree_features`.
"""

import math

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from serving.scoring.features import (
    POPULARITY_ALL_TIME,
    POPULARITY_SHORT,
    SECOND_CURRENT,
    SECOND_EARLIER,
    Features,
    log_factors,
    repeat_inputs,
)
from serving.scoring.mixture import first_pair

VERSION = 1
"""Of this layout: trees that were trained on another one would put things in a senseless order."""
TOP = 60
"""So many of the likeliest candidates are put in order."""
N_PAIRS = 9
"""Shares of the pair counters: latest item, the one before, all earlier ones x (adj, far, bwd)."""
FIRST_REPEAT = N_PAIRS + 14
FIRST_OF_MIXTURE = FIRST_REPEAT + 11
"""Pairs, second order 2, popularity 2, log factors 10, inputs of the repeat odds 11 (0 for other items)."""
N_FEATURES = FIRST_OF_MIXTURE + 6
"""Then ln P, ln P less that of the likeliest, entropy of P, P of all of the session's items, P of the likeliest, and
1 or 2 for one of the session's items (the current, an earlier one)."""
LEAST_P = 1e-12

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


@njit_no_refcount()
def write_tree_features(
    features: Features, probability: Floats, order: Int64s, m: int, pairs: Floats32, out: Floats32
) -> int:
    """Write the features of the TOP likeliest candidates side by side; return how many these are.

    `order`: all candidates, likeliest first, the session's own being 0 to m - 1. `pairs` (M, N_PAIRS) is scratch; `out`
    (N_FEATURES, TOP), zeros where there are fewer candidates.
    """
    n, entropy, of_session = min(len(order), TOP), 0.0, 0.0
    for i in range(len(order)):
        entropy -= probability[i] * math.log(max(probability[i], LEAST_P))
        of_session += probability[i] if i < m else 0.0
    _sum_pairs(features, len(order), m, pairs)
    out[:] = np.float32(0.0)
    ln_best = math.log(max(probability[order[0]], LEAST_P)) if n > 0 else 0.0
    for k in range(n):
        i = order[k]
        for f in range(N_PAIRS):
            out[f, k] = pairs[i, f]
        column = features.column
        shares = (
            column[SECOND_CURRENT, i], column[SECOND_EARLIER, i], column[POPULARITY_SHORT, i],
            column[POPULARITY_ALL_TIME, i],
        )  # fmt: skip
        for f in range(len(shares)):
            out[N_PAIRS + f, k] = shares[f]
        factors = log_factors(features, i)
        for f in range(len(factors)):
            out[N_PAIRS + len(shares) + f, k] = factors[f]
        if i < m:
            inputs = repeat_inputs(features, i)
            for f in range(len(inputs)):
                out[FIRST_REPEAT + f, k] = inputs[f]
        ln_p = math.log(max(probability[i], LEAST_P))
        verdict = (
            ln_p, ln_p - ln_best, entropy, of_session, probability[order[0]], 0.0 if i >= m else min(i + 1.0, 2.0)
        )  # fmt: skip
        for f in range(len(verdict)):
            out[FIRST_OF_MIXTURE + f, k] = verdict[f]
    return n


@njit_no_refcount()
def _sum_pairs(features: Features, n: int, m: int, pairs: Floats32) -> None:
    """Add up the pairs' shares by session item (latest, the one before, earlier ones) and kind."""
    pairs[: n + 1] = np.float32(0.0)
    for r in range(m):
        first = 3 * min(r, 2)
        for e in range(first_pair(features, r), features.pair_end[r]):
            i = features.pair_candidate[e]
            pairs[i, first] += np.float32(features.adj[e])
            pairs[i, first + 1] += np.float32(features.far[e])
            pairs[i, first + 2] += np.float32(features.bwd[e])
