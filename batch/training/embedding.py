"""Item embeddings from the co-occurrence rows: the strongest eigenvectors of a log-likelihood matrix.

    M = C + Cᵀ with C[x, j] = adj + far + bwd;  s = row sums of M + 5
    A = ln(1 + M[x, j] · Σs / (s_x · s_j)) on the non-zeros
    e_j = row of Q · |λ|, normalised, for the d eigenpairs of largest |λ|
(docs/model.md)
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from state.rows.item_rows import PAIR_UNIT, ItemRows
from state.rows.slot_map import SlotMap

D = 64
PRIOR = 5.0

Floats = npt.NDArray[np.float32]


def embed(rows: ItemRows, slots: SlotMap, d: int = D) -> Floats:
    """Return one vector for every slot, float32 (slots of the table, d), of length 1; zeros for a row without pairs."""
    n = len(slots)
    counts = rows["n"][:n].astype(np.int64)
    at = np.repeat(np.arange(n), counts)
    inside = np.arange(rows["neighbour"].shape[1]) < counts[:, None]
    other = slots.find(rows["neighbour"][:n][inside])
    weight = rows["weight"][:n].sum(axis=1)[inside].astype(np.float64) / PAIR_UNIT
    known = other >= 0
    c = csr_matrix((weight[known], (at[known], other[known])), (n, n))
    m = (c + c.T).tocsr()
    sums = np.asarray(m.sum(axis=1)).ravel() + PRIOR
    coo = m.tocoo()
    value = np.log1p(coo.data * sums.sum() / (sums[coo.row] * sums[coo.col]))
    a = csr_matrix((value, (coo.row, coo.col)), (n, n))
    out = np.zeros((len(rows), d), np.float32)
    if a.nnz == 0 or n < 2:
        return out
    k = min(d, n - 1)
    with threadpool_limits(1, "blas"):  # the products are too small to share: two threads take twice as long
        strength, q = eigsh(a, k, which="LM", v0=np.ones(n), tol=1e-4)
    vectors = q * np.abs(strength)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    out[:n, : vectors.shape[1]] = vectors / np.maximum(length, 1e-9)
    return out
