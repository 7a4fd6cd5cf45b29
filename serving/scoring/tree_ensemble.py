"""Trees that put the likeliest candidates in order: what each night trains where it wins (docs/model.md).

A tree is evaluated for all candidates at once (QuickScorer: Lucchese et al., SIGIR 2015). Its leaves are bits, the
leftmost the lowest; each test that a candidate fails takes the leaves of its left side out, and the lowest bit left
is the candidate's leaf. So there are no branches, and candidates go through a test side by side.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array

VERSION = 1
"""Of what the features are: trees that learned from others would put things in a senseless order."""
TOP = 60
"""So many of the likeliest candidates are put in order."""
MAX_LEAVES = 16
N_PAIRS = 9
"""Shares of the pair counters: latest item, the one before, all earlier ones x (adj, far, bwd)."""
FIRST_REPEAT = N_PAIRS + 14
N_PARTS = FIRST_REPEAT + 11
"""Of a candidate: pairs, second order 2, popularity 2, log factors 10, inputs of the repeat odds 11."""
N_FEATURES = N_PARTS + 6
"""Then ln P, ln P less that of the likeliest, entropy of P, P of all of the session's items, P of the likeliest, and
1 or 2 for one of the session's items (the current, an earlier one)."""
LEAST_P = 1e-12
ALL_LEAVES = np.uint32((1 << MAX_LEAVES) - 1)
DE_BRUIJN = np.uint32(0x0F2D)
"""(bit * DE_BRUIJN >> 12) % 16 is different for each of the 16 bits."""

_left, _features = stack_array(np.uint32, TOP), stack_array(np.float32, N_FEATURES, TOP)
_worth, _likeliest = stack_array(np.float64, TOP), stack_array(np.int64, TOP)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


class Forest(NamedTuple):
    """T trees of at most MAX_LEAVES leaves. A candidate fails a test where its feature exceeds the threshold."""

    feature: npt.NDArray[np.int64]  # (T, MAX_LEAVES - 1)
    threshold: Floats32  # the same
    stays: npt.NDArray[np.uint32]  # the same: leaves that are left after the test was failed
    value: Floats  # (T, MAX_LEAVES), at (leaf's bit * DE_BRUIJN >> 12) % 16


NO_FOREST = Forest(
    np.zeros((0, MAX_LEAVES - 1), np.int64), np.zeros((0, MAX_LEAVES - 1), np.float32),
    np.zeros((0, MAX_LEAVES - 1), np.uint32), np.zeros((0, MAX_LEAVES)),
)  # fmt: skip


def leaf_place(leaf: int) -> int:
    """Return where a tree keeps the value of its leaf, counted from the left."""
    return (((1 << leaf) * int(DE_BRUIJN)) >> 12) % MAX_LEAVES


def written_down(forest: Forest) -> dict[str, Any] | None:
    """Return the trees by name, for an anchor's `trees.json`; None where there are none."""
    return {"version": VERSION, **forest._asdict()} if len(forest.value) else None


def forest_from(values: Mapping[str, Any] | None) -> Forest:
    """Return trees written down by `written_down`; none for None, or of another version's features."""
    if values is None or values["version"] != VERSION:
        return NO_FOREST
    return Forest(*(np.array(values[name], column.dtype) for name, column in NO_FOREST._asdict().items()))


@njit_no_refcount()
def scores_of(features: Floats32, n: int, forest: Forest, out: Floats) -> None:
    """Write the sum of the leaves of each of `n` candidates; `features` (N_FEATURES, TOP)."""
    left = _left()
    out[:n] = 0.0
    for t in range(len(forest.feature)):
        left[:] = ALL_LEAVES
        for k in range(MAX_LEAVES - 1):
            threshold, stays = forest.threshold[t, k], forest.stays[t, k]
            if stays == ALL_LEAVES:
                break
            column = features[forest.feature[t, k]]
            for i in range(TOP):
                left[i] &= stays if column[i] > threshold else ALL_LEAVES
        for i in range(n):
            lowest = left[i] & (~left[i] + np.uint32(1))
            out[i] += forest.value[t, (lowest * DE_BRUIJN >> np.uint32(12)) & np.uint32(15)]


@njit_no_refcount()
def put_in_order(order: Int64s, probability: Floats, m: int, parts: Floats32, forest: Forest) -> int:
    """Put the first TOP of `order` in the trees' order, those they find equal as they are; return how many these are.

    `order`: candidates, likeliest first; the first `m` candidates are the session's. `parts` (n, N_PARTS).
    """
    n, spread, of_session = min(len(order), TOP), 0.0, 0.0
    for i in range(len(order)):
        spread -= probability[i] * math.log(max(probability[i], LEAST_P))
        of_session += probability[i] if i < m else 0.0
    features, worth, likeliest = _features(), _worth(), _likeliest()
    features[:] = np.float32(0.0)
    ln_best = math.log(max(probability[order[0]], LEAST_P)) if n > 0 else 0.0
    for k in range(n):
        i = order[k]
        likeliest[k] = i
        for f in range(N_PARTS):
            features[f, k] = parts[i, f]
        ln_p = math.log(max(probability[i], LEAST_P))
        values = (ln_p, ln_p - ln_best, spread, of_session, probability[order[0]], 0.0 if i >= m else min(i + 1.0, 2.0))
        for f in range(len(values)):
            features[N_PARTS + f, k] = values[f]
    scores_of(features, n, forest, worth)
    for k in range(n):
        ahead = 0
        for j in range(n):
            ahead += worth[j] > worth[k] or (worth[j] == worth[k] and j < k)
        order[ahead] = likeliest[k]
    return n
