"""Re-ranking for variety: the next item is worth its score less what it repeats of those before it.

MMR: Carbonell, Goldstein, SIGIR 1998. Greedy DPP: Chen, Zhang, Zhou, NeurIPS 2018 (fast MAP inference).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
AlikeTo = Callable[[int], Floats]
"""How alike each item is to the one at a place, 1 for itself."""


def similarity(vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.integer[Any]]) -> AlikeTo:
    """Return what says how alike each of n items is to the i-th, (n,) in [0, 1]: the cosine of their vectors.

    Where one of two has none it is 1 within a group (0: in none). `vectors` (n, d) have length 1, or 0 where an item
    has none; d may be 0.
    """
    known = (vectors != 0).any(axis=1) if vectors.shape[1] else np.zeros(len(vectors), bool)

    def alike_to(i: int) -> Floats:
        same = ((groups == groups[i]) & (groups[i] != 0)).astype(np.float64)
        cosine = np.clip((vectors @ vectors[i]).astype(np.float64), 0.0, 1.0)
        alike: Floats = np.where(known & known[i], cosine, same)
        alike[i] = 1.0
        return alike

    return alike_to


def mmr(relevance: Floats, alike_to: AlikeTo, strength: float, k: int) -> list[int]:
    """Return the order of k items: at each place the largest (1 − strength) · relevance − strength · closest.

    `relevance` in [0, 1]; strength 0 keeps the order of relevance, ties by place.
    """
    left = np.ones(len(relevance), bool)
    closest = np.zeros(len(relevance))
    order: list[int] = []
    while len(order) < min(k, len(relevance)):
        worth = np.where(left, (1 - strength) * relevance - strength * closest, -np.inf)
        best = int(np.argmax(worth))
        order.append(best)
        left[best] = False
        closest = np.maximum(closest, alike_to(best))
    return order


def greedy_dpp(relevance: Floats, alike_to: AlikeTo, strength: float, k: int) -> list[int]:
    """Return the order of k items that adds most to ln det of the kernel diag(q) · alike · diag(q) at each place.

    q = exp(a · relevance) with a = (1 − strength) / (2 · strength): strength 1 looks at variety only.
    """
    if strength <= 0:
        return [int(i) for i in np.argsort(-relevance, kind="stable")[:k]]
    n = len(relevance)
    quality = np.exp(np.minimum((1 - strength) / (2 * strength), 50.0) * (relevance - relevance.max()))
    gain = quality**2
    rows = np.zeros((min(k, n), n))
    order: list[int] = []
    for place in range(min(k, n)):
        left = gain.copy()
        left[order] = -np.inf
        best = int(np.argmax(left))
        if left[best] <= 1e-12:  # the rest repeats what is there; it follows by relevance
            rest = [i for i in np.argsort(-relevance, kind="stable").tolist() if i not in set(order)]
            return (order + rest)[:k]
        row = quality[best] * alike_to(best) * quality - rows[:place].T @ rows[:place, best]
        rows[place] = row / np.sqrt(gain[best])
        gain = gain - rows[place] ** 2
        order.append(best)
    return order


METHODS = {"mmr": mmr, "dpp": greedy_dpp}
