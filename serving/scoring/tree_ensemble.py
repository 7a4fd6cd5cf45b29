"""Trees that put the likeliest candidates in order: what each night trains where it wins (docs/model.md).

A tree is evaluated for all candidates at once (QuickScorer: Lucchese et al., SIGIR 2015). Its leaves are bits, the
leftmost the lowest; each test that a candidate fails takes the leaves of its left side out, and the lowest bit left
is the candidate's leaf. So there are no branches, and candidates go through a test side by side.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array
from serving.scoring.features import Features
from serving.scoring.tree_features import N_FEATURES, TOP, VERSION, write_tree_features

MAX_LEAVES = 16
ALL_LEAVES = np.uint32((1 << MAX_LEAVES) - 1)
DE_BRUIJN = np.uint32(0x0F2D)
"""(bit * DE_BRUIJN >> 12) % 16 is different for each of the 16 bits."""

_left, _values = stack_array(np.uint32, TOP), stack_array(np.float32, N_FEATURES, TOP)
_scores, _likeliest = stack_array(np.float64, TOP), stack_array(np.int64, TOP)

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
def put_in_order(
    order: Int64s, features: Features, probability: Floats, m: int, pairs: Floats32, forest: Forest
) -> int:
    """Put the first TOP of `order` in the trees' order, those they find equal as they are; return how many these are.

    `order`: candidates, likeliest first; the first `m` candidates are the session's. `pairs` is scratch
    (`write_tree_features`).
    """
    values, scores, likeliest = _values(), _scores(), _likeliest()
    n = write_tree_features(features, probability, order, m, pairs, values)
    for k in range(n):
        likeliest[k] = order[k]
    scores_of(values, n, forest, scores)
    for k in range(n):
        ahead = 0
        for j in range(n):
            ahead += scores[j] > scores[k] or (scores[j] == scores[k] and j < k)
        order[ahead] = likeliest[k]
    return n
