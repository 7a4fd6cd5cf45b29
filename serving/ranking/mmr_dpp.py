"""Re-ranking of a list for variety or for calibrated shares.

MMR and DPP lower an item's score by its similarity to the items chosen before it.

MMR: Carbonell, Goldstein, SIGIR 1998. Greedy DPP: Chen, Zhang, Zhou, NeurIPS 2018 (fast MAP inference).
`calibrated`: Steck, "Calibrated Recommendations", RecSys 2018: departments have the shares they have in the past.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount

SPENT = 1e-12
"""An item whose gain is this small repeats what is there."""
ALPHA = 0.01
"""How much of the wanted shares is mixed into those of a list, so that the divergence is finite (as in the paper)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Alike(NamedTuple):
    """How alike items are: their vectors, and their groups."""

    vectors: npt.NDArray[np.float32]  # (n, d)
    known: npt.NDArray[np.bool_]  # (n,)
    groups: Ints  # (n,)


def similarity(vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.integer[Any]]) -> Alike:
    """Return what `alike_to` looks at: vectors (n, d) of length 1, or 0 where an item has none, and groups, 0 is none.

    d may be 0.
    """
    known = (vectors != 0).any(axis=1) if vectors.shape[1] else np.zeros(len(vectors), bool)
    return Alike(np.ascontiguousarray(vectors, np.float32), known, groups.astype(np.int64))


@njit_no_refcount(fastmath={"reassoc", "contract"})
def alike_to(alike: Alike, i: int, out: Floats) -> None:
    """Write how alike each item is to the i-th, (n,) in [0, 1]: the cosine of their vectors, 1 for itself.

    Where one of two has none it is 1 within a group, else 0.
    """
    vectors, known, groups = alike
    for j in range(len(known)):
        if known[i] and known[j]:
            cosine = np.float32(0.0)
            for k in range(vectors.shape[1]):
                cosine += vectors[i, k] * vectors[j, k]
            out[j] = max(0.0, min(1.0, float(cosine)))
        else:
            out[j] = 1.0 if groups[i] == groups[j] and groups[i] != 0 else 0.0
    out[i] = 1.0


@njit()
def mmr(relevance: Floats, alike: Alike, strength: float, k: int) -> Ints:
    """Return the order of k items: at each place the largest (1 − strength) · relevance − strength · closest.

    `relevance` in [0, 1]; strength 0 keeps the order of relevance, ties by place.
    """
    n = len(relevance)
    order, left = np.empty(min(k, n), np.int64), np.ones(n, np.bool_)
    closest, to_this = np.zeros(n), np.empty(n)
    for place in range(len(order)):
        best, most = 0, -np.inf
        for i in range(n):
            worth = (1 - strength) * relevance[i] - strength * closest[i]
            if left[i] and worth > most:
                best, most = i, worth
        order[place], left[best] = best, False
        alike_to(alike, best, to_this)
        closest = np.maximum(closest, to_this)
    return order


@njit()
def greedy_dpp(relevance: Floats, alike: Alike, strength: float, k: int) -> Ints:
    """Return the order of k items that adds most to ln det of the kernel diag(q) · alike · diag(q) at each place.

    q = exp(a · relevance) with a = (1 − strength) / (2 · strength): strength 1 looks at variety only.
    """
    n = len(relevance)
    order, by_relevance = np.empty(min(k, n), np.int64), np.argsort(-relevance, kind="mergesort")
    place, left, to_this = 0, np.ones(n, np.bool_), np.empty(n)
    if strength > 0:
        quality = np.exp(min((1 - strength) / (2 * strength), 50.0) * (relevance - relevance.max()))
        gain, rows = quality**2, np.zeros((len(order), n))
        while place < len(order):
            best, most = 0, -np.inf
            for i in range(n):
                if left[i] and gain[i] > most:
                    best, most = i, gain[i]
            if most <= SPENT:
                break
            alike_to(alike, best, to_this)
            row = rows[place]
            row[:] = quality[best] * to_this * quality
            for before in range(place):
                row -= rows[before] * rows[before, best]
            row /= np.sqrt(gain[best])
            gain = gain - row**2
            order[place], left[best], place = best, False, place + 1
    for i in by_relevance:  # what is left repeats what is there; it follows by relevance
        if left[i] and place < len(order):
            order[place], place = i, place + 1
    return order


def department(category: str) -> str:
    """Return the first part of a category path."""
    return category.split("/", 1)[0]


def calibrated(
    relevance: Floats, departments: Sequence[str], past: Sequence[str], strength: float, k: int
) -> list[int]:
    """Return the order of k items: at each place the largest (1 − strength) · relevance − strength · divergence.

    The divergence is KL(p ‖ q) of the shares p of the departments in the `past` ("": none) from those of the list with
    the item, q. `relevance` in [0, 1]; strength 0 keeps its order, and so does an empty past.
    """
    wanted = Counter(name for name in past if name)
    names = list(wanted)
    p = np.array([wanted[name] for name in names]) / max(wanted.total(), 1)
    place_of = {name: place for place, name in enumerate(names)}
    group = np.array([place_of.get(name, -1) for name in departments], np.int64)  # -1: none of those wanted
    counts, left, order = np.zeros(len(p)), np.ones(len(relevance), np.bool_), list[int]()
    for n in range(1, min(k, len(relevance)) + 1):
        as_they_are, one_more = (p * np.log((1 - ALPHA) * shown / n + ALPHA * p) for shown in (counts, counts + 1))
        gain = np.append(one_more - as_they_are, 0.0)  # the last one is for group -1
        worth = np.where(left, (1 - strength) * relevance + strength * gain[group], -np.inf)
        best = int(np.argmax(worth))
        order.append(best)
        left[best] = False
        if group[best] >= 0:
            counts[group[best]] += 1
    return order


METHODS = {"mmr": mmr, "dpp": greedy_dpp}
