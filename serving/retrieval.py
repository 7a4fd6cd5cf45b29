"""Search over an anchor's item factors."""

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from state.anchor import INDEX, Anchor, load_anchor

Floats = npt.NDArray[np.float32]


def build_index(whitened: Floats) -> bytes:
    """Return an exact inner-product index over the factors, as bytes."""
    index = faiss.IndexFlatIP(whitened.shape[1])
    index.add(whitened)
    return bytes(faiss.serialize_index(index).tobytes())


class VectorIndex:
    """The search index of one anchor."""

    def __init__(self, anchor: Anchor, index: faiss.Index) -> None:
        self.version = anchor.version
        self._anchor, self._index = anchor, index
        lengths = np.linalg.norm(anchor.whitened, axis=1, keepdims=True)
        self._directions = anchor.whitened / np.maximum(lengths, 1e-12)

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Load and verify an anchor's folder; raises AnchorDamaged."""
        return cls(load_anchor(folder), faiss.read_index(str(folder / INDEX)))

    def search(self, vector: Floats, k: int) -> list[tuple[int, float]]:
        """Return (item hash, score) of the k items with the largest inner product."""
        scores, rows = self._index.search(vector[None, :], min(k, self._index.ntotal))
        return [
            (int(self._anchor.item_hash[row]), float(score))
            for row, score in zip(rows[0], scores[0], strict=True)
            if row >= 0
        ]

    def similar(self, item_hash: int, k: int) -> list[tuple[int, float]]:
        """Return (item hash, cosine) of the k items closest to an item; nothing for one without a factor."""
        row = int(self._anchor.row_of(np.array([item_hash], np.uint64))[0])
        if row < 0:
            return []
        cosines = self._directions @ self._directions[row]
        best = np.argsort(-cosines, kind="stable")[:k]
        return [(int(self._anchor.item_hash[j]), float(cosines[j])) for j in best if j != row]
