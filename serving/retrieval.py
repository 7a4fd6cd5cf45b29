"""Search over an anchor's item factors, and over those of items that came after it."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from serving.new_items import NewItems
from state.anchor import INDEX, Anchor, load_anchor

EXACT_UP_TO = 50_000
"""More items than this are searched through an inverted file (IVF)."""
WANTED_RECALL = 0.95
RECALL_AT = 20
N_QUERIES = 256
QUERY_NOISE = 0.5

Floats = npt.NDArray[np.float32]


def build_index(whitened: Floats, exact_up_to: int = EXACT_UP_TO) -> tuple[bytes, dict[str, float]]:
    """Return an inner-product index over the factors as bytes, and its kind and measured recall@20.

    Above `exact_up_to` items: IVF with 4·√n lists, probing as few of them as give
    WANTED_RECALL on queries near items, as users are.
    """
    n, d = whitened.shape
    if n <= exact_up_to:
        index = faiss.IndexFlatIP(d)
        index.add(whitened)
        return bytes(faiss.serialize_index(index).tobytes()), {"index_recall@20": 1.0}
    n_lists = int(4 * np.sqrt(n))
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, n_lists, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.seed = 42
    ivf.train(whitened)
    ivf.add(whitened)
    rng = np.random.default_rng(42)
    queries = whitened[rng.choice(n, min(N_QUERIES, n), replace=False)]
    spread = QUERY_NOISE * np.linalg.norm(queries, axis=1, keepdims=True) / np.sqrt(d)
    queries = queries + rng.normal(0, 1, queries.shape).astype(np.float32) * spread.astype(np.float32)
    truth = np.argsort(-(queries @ whitened.T), axis=1, kind="stable")[:, :RECALL_AT]
    recall = 0.0
    ivf.nprobe = 1
    while True:
        _, found = ivf.search(queries, RECALL_AT)
        recall = float(np.mean([len(set(a) & set(b)) / RECALL_AT for a, b in zip(found, truth, strict=True)]))
        if recall >= WANTED_RECALL or ivf.nprobe >= n_lists:
            break
        ivf.nprobe = min(2 * ivf.nprobe, n_lists)
    figures = {"index_recall@20": recall, "index_lists": n_lists, "index_probes": ivf.nprobe}
    return bytes(faiss.serialize_index(ivf).tobytes()), figures


class VectorIndex:
    """The search index of one anchor, and beside it the exact one of newer items."""

    def __init__(self, anchor: Anchor, index: faiss.Index) -> None:
        self.version = anchor.version
        self.new_items = NewItems(anchor)
        self.anchor, self._index = anchor, index
        lengths = np.linalg.norm(anchor.whitened, axis=1, keepdims=True)
        self._directions = anchor.whitened / np.maximum(lengths, 1e-12)

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Load and verify an anchor's folder; raises AnchorDamaged."""
        return cls(load_anchor(folder), faiss.read_index(str(folder / INDEX)))

    def search(self, vector: Floats, k: int, allowed: npt.NDArray[np.uint64] | None = None) -> list[tuple[int, float]]:
        """Return (item hash, score) of the k items with the largest inner product, new items among them.

        `allowed` (id hashes) goes into the search: k items are found among these, however few they are.
        """
        params: Any = None
        if allowed is not None:
            known = self.anchor.row_of(allowed)
            chosen = faiss.IDSelectorBatch(known[known >= 0])
            if isinstance(self._index, faiss.IndexIVF):  # every list: the few that pass may lie anywhere
                params = faiss.SearchParametersIVF(sel=chosen, nprobe=self._index.nlist)  # type: ignore[call-arg]
            else:
                params = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        scores, rows = self._index.search(vector[None, :], min(k, self._index.ntotal), params=params)
        found = [
            (int(self.anchor.item_hash[row]), float(score))
            for row, score in zip(rows[0], scores[0], strict=True)
            if row >= 0
        ]
        newer = self.new_items.search(vector, k if allowed is None else len(self.new_items))
        if allowed is not None:
            there = np.isin(np.array([item for item, _ in newer], np.uint64), allowed)
            newer = [pair for pair, keep in zip(newer, there.tolist(), strict=True) if keep]
        return sorted(found + newer, key=lambda pair: (-pair[1], pair[0]))[:k] if newer else found

    def similar(self, item_hash: int, k: int) -> list[tuple[int, float]]:
        """Return (item hash, cosine) of the k items closest to an item; nothing for one without a factor."""
        row = int(self.anchor.row_of(np.array([item_hash], np.uint64))[0])
        if row < 0:
            return []
        cosines = self._directions @ self._directions[row]
        best = np.argsort(-cosines, kind="stable")[:k]
        return [(int(self.anchor.item_hash[j]), float(cosines[j])) for j in best if j != row]
