"""Implicit ALS with frequency-scaled regularisation, as revisited by Rendle et al. (RecSys 2022).

    A_u = α0 · YᵀY + Σ_{i in S_u} w_ui · y_i y_iᵀ + λ (|S_u| + α0 |I|)^ν · I,    b_u = Σ w_ui · y_i

The exact half-step solves A_u x_u = b_u by Cholesky, for users and items in turn. Seeded;
a row's result does not depend on the threads that share the rows.
"""

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, parallel=True, fastmath=True)
def _half_step(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], data: Floats, y: Floats, base: Floats,
    reg: Floats, out: Floats,
) -> None:  # fmt: skip
    d = y.shape[1]
    for u in numba.prange(len(indptr) - 1):
        a, b = base.copy(), np.zeros(d, np.float32)
        for at in range(indptr[u], indptr[u + 1]):
            i, w = indices[at], data[at]
            for r in range(d):
                x = w * y[i, r]
                b[r] += x
                for c in range(r + 1):
                    a[r, c] += x * y[i, c]
        for r in range(d):
            a[r, r] += reg[u]
        for j in range(d):  # Cholesky by rows: all sums run along rows
            for k in range(j + 1):
                dot = np.float32(0)
                for q in range(k):
                    dot += a[j, q] * a[k, q]
                if k < j:
                    a[j, k] = (a[j, k] - dot) * a[k, k]
                else:
                    a[j, j] = np.float32(1) / np.sqrt(a[j, j] - dot)
        for r in range(d):
            dot = np.float32(0)
            for q in range(r):
                dot += a[r, q] * b[q]
            b[r] = (b[r] - dot) * a[r, r]
        for r in range(d - 1, -1, -1):
            b[r] *= a[r, r]
            for q in range(r):
                b[q] -= b[r] * a[r, q]
        out[u] = b


def _regularization(matrix: csr_matrix, strength: float, unobserved: float, power: float) -> Floats:
    counts = np.diff(matrix.indptr) + unobserved * matrix.shape[1]
    return np.asarray(strength * counts**power, np.float32)


def fit_ials(
    matrix: csr_matrix, factors: int, regularization: float, unobserved: float, power: float = 1.0,
    iterations: int = 16, seed: int = 42,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return (user factors, item factors), float32; `matrix` holds the weights of observed pairs."""
    rng = np.random.default_rng(seed)
    by_user, by_item = matrix.tocsr(), matrix.T.tocsr()
    x, y = ((rng.normal(0, 0.1 / np.sqrt(factors), (n, factors))).astype(np.float32) for n in matrix.shape)
    regs = [_regularization(side, regularization, unobserved, power) for side in (by_user, by_item)]
    for _ in range(iterations):
        for side, reg, fixed, out in ((by_user, regs[0], y, x), (by_item, regs[1], x, y)):
            base = (unobserved * (fixed.T @ fixed)).astype(np.float32)
            _half_step(
                side.indptr.astype(np.int64), side.indices.astype(np.int64), side.data.astype(np.float32), fixed,
                base, reg, out,
            )  # fmt: skip
    return x, y
