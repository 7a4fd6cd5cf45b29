"""The items of an index that pass a selection, as a bitmap that follows the catalogue."""

from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from state.anchor import Anchor

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
KEPT_FACTORS = 4 << 20
"""Bytes of factors that are gathered once for a selection; more are gathered for each search."""


class CatalogueView(Protocol):
    """A catalogue, as far as an index needs it.

    `FilterBitmap.follow` calls it at each search under a filter, in the thread that answers. Nothing of it may block
    or raise.
    """

    @property
    def version(self) -> int:
        """A number that grows with every change."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def hashes(self) -> Hashes:
        """Return the id hashes of the items, by row."""

    def rows_of(self, item_hashes: Hashes, /) -> Rows:
        """Return the row of each item, -1 for one that is not known."""

    def changed_since(self, version: int, /) -> Rows | None:
        """Return the rows that changed since a version; None: too long ago, all may have."""


class ItemFilter(Protocol):
    """A selection of a catalogue's items, called as CatalogueView is; `mask` raises RuleFailed where a rule fails."""

    @property
    def catalogue(self) -> CatalogueView:
        """The catalogue it is a selection of."""

    @property
    def mask(self) -> Flags:
        """Which items pass now, by row."""


class FilterBitmap:
    """The items of an anchor and its index that pass."""

    def __init__(self, passing: ItemFilter, anchor: Anchor, head: Rows) -> None:
        """`head`: rows of the anchor in the order of the index."""
        self.passing, self._anchor, self._head, self._version = passing, anchor, head, -1
        self._there = np.zeros(len(anchor.item_hash), np.bool_)
        self._bits = np.zeros(-(-len(head) // 8), np.uint8)
        bitmap: Any = faiss.IDSelectorBitmap
        self.selector: faiss.IDSelector = bitmap(self._bits)
        """Of places in the index; it reads the bits as they are when it is used."""
        self.n = 0
        """How many pass."""
        self.n_indexed = 0
        """How many of them are in the index."""
        self.changes = 0
        """How often other items passed than before."""
        self._rows: Rows | None = None
        self._factors: Floats | None = None

    def follow(self) -> None:
        """Apply the catalogue's changes."""
        catalogue = self.passing.catalogue
        if catalogue.version == self._version:
            return
        changed = catalogue.changed_since(self._version)
        mask, hashes = self.passing.mask, catalogue.hashes()
        among = np.arange(len(hashes)) if changed is None else changed
        mine = self._anchor.row_of(hashes[among])
        known = mine >= 0
        mine, now = mine[known], mask[among[known]]
        if (self._there[mine] != now).any():
            self._there[mine], self._rows, self._factors = now, None, None
            self.n = int(np.count_nonzero(self._there))
            self.changes += 1
            indexed = self._there[self._head]
            self.n_indexed = int(np.count_nonzero(indexed))
            self._bits[:] = np.packbits(indexed, bitorder="little")
        self._version = catalogue.version

    def holds(self, items: Hashes) -> Flags:
        """Return which items pass, those that the anchor lacks among them."""
        rows = self.passing.catalogue.rows_of(items)
        found: Flags = (rows >= 0) & self.passing.mask[rows]
        return found

    @property
    def rows(self) -> Rows:
        """The rows of the anchor that pass."""
        if self._rows is None:
            self._rows = np.flatnonzero(self._there)
        return self._rows

    @property
    def factors(self) -> Floats:
        """Their factors."""
        if self._factors is not None:
            return self._factors
        factors = self._anchor.whitened[self.rows]
        if factors.nbytes <= KEPT_FACTORS:
            self._factors = factors
        return factors
