"""Lists whose departments have the shares they have in what the visitor did.

Steck, "Calibrated Recommendations", RecSys 2018.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ALPHA = 0.01
"""How much of the wanted shares is mixed into those of a list, so that the divergence is finite (as in the paper)."""

Floats = npt.NDArray[np.float64]


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
