"""The kernels of `batch_lists`: from scored candidates to the places of a batch's lists."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from serving.ranking.fill_places import EMPTY, fill_places

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
FEW = 256
"""Candidates that insertion puts in order; with more of them it could take longer than sorting."""


class Selected(NamedTuple):
    """The candidates of lists, best first: columns (R, M); of row r the first `n[r]` count."""

    n: Ints
    row: Ints  # in the catalogue
    item: Uint64s
    score: Floats
    seed: Uint64s
    reason: Ints


@njit_no_refcount()
def apply_filter(
    candidates: Selected, b: int, mask: Flags, factors: Floats, met_in: Ints, excluded: int, left: Ints, worth: Floats
) -> int:
    """Write which candidates of row `b` may be shown and their scores with all boosts; return how many.

    `met_in` is `excluded` at the rows that must not be shown.
    """
    n_left = 0
    for k in range(candidates.n[b]):
        row = candidates.row[b, k]
        if row >= 0 and mask[row] and met_in[row] != excluded:
            left[n_left] = k
            n_left += 1
            worth[n_left - 1] = candidates.score[b, k] * (factors[row] if len(factors) > 0 else 1.0)
    return n_left


@njit()
def put_in_order(worth: Floats, candidates: Ints) -> None:
    """Put candidates in the order of falling worth, equal ones as they are; `worth` is not kept."""
    if len(worth) > FEW:
        candidates[:] = candidates[np.argsort(-worth, kind="mergesort")]
        return
    for k in range(1, len(worth)):  # nearly all are where they belong: rules move some of those that came best first
        value, one, at = worth[k], candidates[k], k
        while at > 0 and worth[at - 1] < value:
            worth[at], candidates[at] = worth[at - 1], candidates[at - 1]
            at -= 1
        worth[at], candidates[at] = value, one


@njit()
def choose(
    places: Ints, at: Ints, wants: Ints, counts: Ints, candidates: Selected, mask: Flags, factors: Floats,
    codes: npt.NDArray[np.int32], limits: Ints, excluded: Ints, ends: Ints, met_in: Ints, answer: int, out: Ints,
) -> None:  # fmt: skip
    """Write the candidates of each request's list, best first; nothing where they are not enough.

    `places`, `at` (their rows of candidates), `wants`, `counts` (G,): requests that share everything else;
    `excluded[ends[g - 1] : ends[g]]`: rows that request g must not see.
    """
    n, width = candidates.n, candidates.row.shape[1]
    left, worth = np.empty(width, np.int64), np.empty(width)
    for g in range(len(places)):
        b, place = at[g], places[g]
        for k in range(ends[g - 1] if g > 0 else 0, ends[g]):
            if excluded[k] >= 0:
                met_in[excluded[k]] = answer + g
        n_left = apply_filter(candidates, b, mask, factors, met_in, answer + g, left, worth)
        if n_left < wants[g]:
            continue
        order = left[:n_left]
        if len(factors) > 0:
            put_in_order(worth[:n_left], order)
        if len(limits) > 0:
            held_back = np.zeros((len(limits), n[b]), np.bool_)
            nothing, nobody = np.zeros((len(limits), counts[g]), np.int32), np.zeros(counts[g], np.bool_)
            fill_places(order, codes[:, b], limits, 0, nothing, nobody, out[place, : counts[g]], held_back)
        else:
            out[place, : counts[g]] = order[: counts[g]]


@njit_no_refcount()
def look_up_columns(
    places: Ints, at: Ints, chosen: Ints, candidates: Selected, factors: Floats, n: Ints, shown: Ints, items: Uint64s,
    scores: Floats, reason: Ints, seeds: Uint64s,
) -> None:  # fmt: skip
    """Write how many candidates each list has and, of each: catalogue row, id hash, boosted score, what decided."""
    for g in range(len(places)):
        b, place = at[g], places[g]
        for k in range(chosen.shape[1]):
            c = chosen[place, k]
            if c == EMPTY:
                break
            n[place] += 1
            row = candidates.row[b, c]
            shown[place, k], items[place, k] = row, candidates.item[b, c]
            score, fallen = candidates.score[b, c] * (factors[row] if len(factors) > 0 else 1.0), k
            while fallen > 0 and scores[place, fallen - 1] < score:  # caps moved an item down: scores stay in order
                scores[place, fallen] = scores[place, fallen - 1]
                fallen -= 1
            scores[place, fallen] = score
            reason[place, k], seeds[place, k] = candidates.reason[b, c], candidates.seed[b, c]


@njit_no_refcount()
def mark_moved(places: Ints, n: Ints, shown: Ints, matching: Flags, moved: Ints, matched: Flags) -> None:
    """Mark the sets of rules that have moved items that match."""
    for place in places:
        for k in range(n[place]):
            matched[moved[place, k]] |= matching[shown[place, k]]


@njit_no_refcount()
def move(places: Ints, n: Ints, shown: Ints, matching: Flags, longer: Ints, moved: Ints) -> None:
    """Put `longer` sets in the place of those that have moved items that match."""
    for place in places:
        for k in range(n[place]):
            if matching[shown[place, k]]:
                moved[place, k] = longer[moved[place, k]]
