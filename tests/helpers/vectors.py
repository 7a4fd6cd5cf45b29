"""Anchors of a few items with factors written by hand."""

import numpy as np

from schemas.ids import hash_id
from serving.retrieval.build import build_index
from serving.retrieval.vector_index import VectorIndex
from state.anchor import Anchor


def vector_index(factors):
    """Return the index of an anchor `a1`, given (two numbers) by item."""
    hashes = np.array([hash_id(name) for name in factors], np.uint64)
    order = np.argsort(hashes)
    vectors = np.array(list(factors.values()), np.float32)[order]
    anchor = Anchor("a1", [], hashes[order], vectors, np.eye(2, dtype=np.float32), 2.0, np.ones(32))
    return VectorIndex(anchor, build_index(vectors)[0])
