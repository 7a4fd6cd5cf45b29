"""Items that came after the anchor: factors from those of their neighbours, in a small exact index."""

from collections.abc import Callable
from copy import copy

import numpy as np
import numpy.typing as npt

from schemas.compiled.top_k import largest_first
from state.anchor import Anchor
from state.rows.item_rows import ItemRows
from state.rows.slot_map import ABSENT, SlotMap

MAX_NEW = 20_000
PER_LOOK = 200
"""Items whose factors one look renews: their neighbours change as events come."""

FIRST_LOOK = 4
"""Times the items asked for: the best that are looked at first, in case a selection lets only some of them pass."""

Floats = npt.NDArray[np.float32]
Holds = Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]
"""Says which items, by id hash, may be found."""


def everything(items: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return True for every item: nothing is filtered."""
    return np.ones(len(items), np.bool_)


class NewItems:
    """A factor for every recent item that the anchor lacks, if its neighbours have one.

    w = Σ weight · w_neighbour / Σ weight, over the pair counters of the item's row.
    """

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._watched: dict[int, None] = {}
        self._items = np.zeros(0, np.uint64)  # all that are watched
        self._next = 0
        self._place_of: dict[int, int] = {}  # of those that have a factor
        self._known = np.zeros(0, np.uint64)  # by place
        self._factors = np.zeros((0, anchor.whitened.shape[1]), np.float32)

    def __len__(self) -> int:
        return len(self._watched)

    def copy(self) -> "NewItems":
        """Return what can be found now, for another thread to search."""
        same = copy(self)
        same._watched, same._place_of, same._factors = {}, {}, self._factors.copy()
        return same

    def watch(self, item_hashes: npt.NDArray[np.uint64]) -> None:
        """Follow those of the items that the anchor lacks, at most MAX_NEW in all."""
        for item in item_hashes[self._anchor.row_of(item_hashes) == ABSENT].tolist():
            if len(self._watched) < MAX_NEW:
                self._watched[item] = None
        if len(self._items) < len(self._watched):
            self._items = np.array(list(self._watched), np.uint64)

    def due(self) -> npt.NDArray[np.uint64]:
        """Return the items whose factors `renew` should look at now, all of them in turn."""
        if not len(self._items):
            return self._items
        first, self._next = self._next, (self._next + PER_LOOK) % len(self._items)
        return np.concatenate((self._items[first : first + PER_LOOK], self._items[:first]))[:PER_LOOK]

    def renew(self, items: npt.NDArray[np.uint64], rows: ItemRows, slots: SlotMap) -> None:
        """Compute the factors of `items`, whose rows are in the table."""
        at = slots.find(items)
        together = rows["n"][at] > 0  # with something: most new items have not been seen
        for item, slot in zip(items[together].tolist(), at[together].tolist(), strict=True):
            n = int(rows["n"][slot])
            known = self._anchor.row_of(rows["neighbour"][slot, :n])
            weight = rows["weight"][slot, :, :n].sum(axis=0).astype(np.float32) * (known != ABSENT)
            if weight.sum() > 0:
                factor = weight @ self._anchor.whitened[known] / weight.sum()
                place = self._place_of.setdefault(item, len(self._place_of))
                if place == len(self._factors):
                    self._factors = np.concatenate((self._factors, np.zeros((place + 1, len(factor)), np.float32)))
                self._factors[place] = factor
        if len(self._known) < len(self._place_of):
            self._known = np.array(list(self._place_of), np.uint64)

    def search(self, vector: Floats, k: int, holds: Holds = everything) -> tuple[npt.NDArray[np.uint64], Floats]:
        """Return (item hashes, scores) of the k items with the largest positive inner product, of those that `holds`.

        Best first.
        """
        scores, looked_at = self._factors[: len(self._known)] @ vector, FIRST_LOOK * k
        positive = np.flatnonzero(scores > 0)
        items, scores = self._known[positive], scores[positive]
        while True:
            best = largest_first(scores, looked_at)
            best = best[holds(items[best])][:k]
            if len(best) == k or looked_at >= len(scores):
                return items[best], scores[best]
            looked_at *= FIRST_LOOK
