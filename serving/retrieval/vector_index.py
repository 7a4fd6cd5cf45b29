"""Search over an anchor's item factors, and over those of items that came after it."""

from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from schemas.compiled.top_k import largest_first
from serving.retrieval.build import EXACT_UP_TO, longest
from serving.retrieval.filter_bitmap import FilterBitmap, ItemFilter
from serving.retrieval.new_items import NewItems
from state.anchor import INDEX, Anchor, load_anchor, read_manifest

EXACT_AMONG = 50_000
"""A filter that leaves fewer items than this is answered exactly, from their factors."""
GATHERED = 1 / 8
"""Share of the items of an index that is exact itself, above which looking through it costs less than that."""
FILTERED_PROBES = 2
"""Times the probes of a search without a filter."""
KEPT_FILTERS = 32
SIMILAR_KEPT, KEPT_SIMILAR = 64, 20_000
"""As many similar items are kept, of as many items: they change with the anchor alone."""
SIMILAR_FROM = 20
"""Candidates by inner product for each similar item asked for, where not all directions are looked at."""
KEPT_SEARCHES = 20_000
"""A vector stays as it is until its user's next event, and is searched with for every list until then."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class _Kept(NamedTuple):
    """The result of a search, best first."""

    changes: int
    """Of the filter, when it was searched (`FilterBitmap.changes`)."""
    rows: Rows
    scores: Floats


class _Similar(NamedTuple):
    """The items closest to an item, closest first."""

    looked_for: int
    hashes: Hashes
    cosines: Floats


class VectorIndex:
    """The search index of one anchor, and beside it the exact one of newer items."""

    def __init__(self, anchor: Anchor, index: Any, created_ms: int = 0) -> None:
        """`created_ms`: when the anchor was trained; 0: not known."""
        self.version, self.created_ms = anchor.version, created_ms
        self.new_items = NewItems(anchor)
        self.anchor, self._index = anchor, index
        self._head = longest(anchor.whitened, index.ntotal)
        self._filters: dict[ItemFilter, FilterBitmap] = {}
        self._similar: dict[int, _Similar] = {}
        self._searches: dict[tuple[bytes, int, ItemFilter | None], _Kept] = {}
        self._directions = _directions(anchor.whitened) if len(anchor.whitened) <= EXACT_UP_TO else None

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Load and verify an anchor's folder, its large files memory-mapped; raises AnchorDamaged."""
        anchor, index = load_anchor(folder, mapped=True), faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        return cls(anchor, index, int(read_manifest(folder).get("created_ms", 0)))

    def copy(self) -> "VectorIndex":
        """Return the index as it is now, with memories of its own, for another thread to search."""
        same = copy(self)
        same.new_items, same._filters, same._similar, same._searches = self.new_items.copy(), {}, {}, {}
        return same

    def longest(self, n: int) -> Hashes:
        """Return the items with the n longest factors."""
        return self.anchor.item_hash[longest(self.anchor.whitened, n)]

    def search(self, vector: Floats, k: int, passing: ItemFilter | None = None) -> tuple[Hashes, Floats]:
        """Return (item hashes, scores) of the k items with the largest inner product, best first, new ones among them.

        `passing` goes into the search: k items are found among those that pass, however few they are.
        """
        allowed = None if passing is None else self._filter(passing)
        rows, scores = self._known(vector, k, allowed)
        hashes = self.anchor.item_hash[rows]
        newer = self.new_items.search(vector, k) if allowed is None else self.new_items.search(vector, k, allowed.holds)
        if not len(newer[0]):
            return hashes, scores
        hashes, scores = np.concatenate((hashes, newer[0])), np.concatenate((scores, newer[1]))
        order = np.lexsort((hashes, -scores))[:k]
        return hashes[order], scores[order]

    def _known(self, vector: Floats, k: int, allowed: FilterBitmap | None) -> tuple[Rows, Floats]:
        """Return (rows, scores) of the best items of the anchor, best first; from memory if nothing has changed."""
        key = vector.tobytes(), k, None if allowed is None else allowed.passing
        changes = 0 if allowed is None else allowed.changes
        kept = self._searches.pop(key, None)
        if kept is None or kept.changes != changes:
            found = self._by_index(vector, k) if allowed is None else self._among(vector, k, allowed)
            kept = _Kept(changes, *found)
            if len(self._searches) >= KEPT_SEARCHES:
                del self._searches[next(iter(self._searches))]
        self._searches[key] = kept  # at the end: the least recently used one is dropped first
        return kept.rows, kept.scores

    def similar(self, item_hash: int, k: int) -> list[tuple[int, float]]:
        """Return (item hash, cosine) of the k items closest to an item; nothing for one without a factor."""
        kept = self._similar.get(item_hash)
        if kept is None or kept.looked_for < k:
            if len(self._similar) >= KEPT_SIMILAR:
                self._similar.clear()
            kept = self._similar[item_hash] = self._closest(item_hash, max(k, SIMILAR_KEPT))
        return list(zip(kept.hashes[:k].tolist(), kept.cosines[:k].tolist(), strict=True))

    def _closest(self, item_hash: int, k: int) -> _Similar:
        row = int(self.anchor.row_of(np.array([item_hash], np.uint64))[0])
        if row < 0:
            return _Similar(k, np.zeros(0, np.uint64), np.zeros(0, np.float32))
        direction = _directions(self.anchor.whitened[row : row + 1])[0]
        if self._directions is not None:
            near, cosines = np.arange(len(self._directions)), self._directions @ direction
        else:
            near, _ = self._by_index(direction, SIMILAR_FROM * k)
            cosines = _directions(self.anchor.whitened[near]) @ direction
        best = largest_first(cosines, k + 1)  # one of them is the item itself
        best = best[near[best] != row][:k]
        return _Similar(k, self.anchor.item_hash[near[best]], cosines[best])

    def _by_index(self, vector: Floats, k: int, params: Any = None) -> tuple[Rows, Floats]:
        """Return (rows, scores) of the best of the index, best first."""
        scores, places = self._index.search(vector[None, :], min(k, self._index.ntotal), params=params)
        there = places[0] >= 0
        return self._head[places[0][there]], scores[0][there]

    def _filter(self, passing: ItemFilter) -> FilterBitmap:
        """Return what a search needs of a selection; most come again."""
        found = self._filters.get(passing)
        if found is None:
            if len(self._filters) >= KEPT_FILTERS:
                self._filters.clear()
                self._searches.clear()  # their changes were counted by these filters
            found = self._filters[passing] = FilterBitmap(passing, self.anchor, self._head)
        found.follow()
        return found

    def _among(self, vector: Floats, k: int, allowed: FilterBitmap) -> tuple[Rows, Floats]:
        """Return the best of the allowed rows: exactly if they are few, or too few of them are in the index."""
        n = self._index.ntotal
        exact = isinstance(self._index, faiss.IndexFlat) and n == len(self.anchor.item_hash)
        if allowed.n > (GATHERED * n if exact else EXACT_AMONG) and allowed.n_indexed >= k:
            for all_lists in (False, True):  # where few pass in the lists that are probed first, as in small ones
                rows, scores = self._by_index(vector, k, self._with_selector(allowed.selector, all_lists))
                if len(rows) == k:
                    return rows, scores
        all_scores = allowed.factors @ vector
        best = largest_first(all_scores, k)
        return allowed.rows[best], all_scores[best]

    def _with_selector(self, chosen: faiss.IDSelector, all_lists: bool) -> Any:
        if isinstance(self._index, faiss.IndexFlat):
            return faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        ivf = faiss.extract_index_ivf(self._index)
        probes = ivf.nlist if all_lists else min(FILTERED_PROBES * ivf.nprobe, ivf.nlist)
        params = faiss.SearchParametersIVF(sel=chosen, nprobe=probes)  # type: ignore[call-arg]
        if isinstance(self._index, faiss.IndexRefine):
            factor: Any = self._index.k_factor  # type: ignore[attr-defined]
            return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=params)  # type: ignore[call-arg]
        return params


def _directions(vectors: Floats) -> Floats:
    """Return the vectors at length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
