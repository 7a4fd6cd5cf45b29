"""Implicit ALS with frequency-scaled regularisation, as revisited by Rendle et al. (RecSys 2022).

    A_u = α0 · YᵀY + Σ_{i in S_u} w_ui · y_i y_iᵀ + λ_u · I,    λ_u = λ (|S_u| + α0 |I|)^ν,    b_u = Σ w_ui · y_i

The exact half-step solves A_u x_u = b_u, for users and items in turn. In the basis in which YᵀY is diagonal,
A_u is D_u + VᵀWV with a diagonal D_u and the n rows V of the user's items, so by the push-through identity

    x_u = D_u⁻¹ Vᵀ (W⁻¹ + V D_u⁻¹ Vᵀ)⁻¹ 1

costs n² d instead of n d² + d³/3: most rows are short, so a thousand factors are affordable. Rows longer than d are
solved by the definition. Seeded; a row's result does not depend on the threads that share the rows.
"""

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from schemas.compiled.njit import njit

Floats = npt.NDArray[np.float32]


@njit(parallel=True)
def _solve_rows(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], data: Floats, y: Floats, gram: Floats,
    reg: Floats, out: Floats,
) -> None:  # fmt: skip
    """Solve every row's system; `gram` is the diagonal of α0 YᵀY in the basis of `y`."""
    d = y.shape[1]
    for u in numba.prange(len(indptr) - 1):
        first, n = indptr[u], indptr[u + 1] - indptr[u]
        if n == 0:
            out[u] = np.float32(0)
            continue
        diagonal = gram + reg[u]
        v = np.empty((n, d), np.float32)
        for at in range(n):
            v[at] = y[indices[first + at]]
        if n <= d:
            scaled = v / diagonal
            system = scaled @ v.T
            for at in range(n):
                system[at, at] += np.float32(1) / data[first + at]
            out[u] = np.linalg.solve(system, np.ones(n, np.float32)) @ scaled
        else:
            weights = data[first : first + n]
            weighted = v * weights.reshape(n, 1)
            full = weighted.T @ v
            for r in range(d):
                full[r, r] += diagonal[r]
            out[u] = np.linalg.solve(full, v.T @ weights)


def half_step(matrix: csr_matrix, y: Floats, regularization: Floats, unobserved: float) -> Floats:
    """Return the exact solution (rows, d) for every row of `matrix` (rows, len(y)) with `y` (n, d) held fixed."""
    gram, basis = np.linalg.eigh((y.T @ y).astype(np.float64))
    basis = basis.astype(np.float32)
    out = np.empty((matrix.shape[0], y.shape[1]), np.float32)
    with threadpool_limits(1, "blas"):  # the rows are shared among threads already
        _solve_rows(
            matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float32),
            y @ basis, (unobserved * np.maximum(gram, 0)).astype(np.float32), regularization, out,
        )  # fmt: skip
    return np.asarray(out @ basis.T, np.float32)


def _regularization(matrix: csr_matrix, strength: float, unobserved: float, power: float) -> Floats:
    counts = np.diff(matrix.indptr) + unobserved * matrix.shape[1]
    return np.asarray(strength * counts**power, np.float32)


def fit_ials(
    matrix: csr_matrix, factors: int, regularization: float, unobserved: float, power: float = 1.0,
    iterations: int = 16, seed: int = 42,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return (user factors, item factors), float32; `matrix` holds the weights (> 0) of observed pairs."""
    rng = np.random.default_rng(seed)
    by_user, by_item = matrix.tocsr(), matrix.T.tocsr()
    x, y = ((rng.normal(0, 0.1 / np.sqrt(factors), (n, factors))).astype(np.float32) for n in matrix.shape)
    user_reg, item_reg = (_regularization(side, regularization, unobserved, power) for side in (by_user, by_item))
    for _ in range(iterations):
        x = half_step(by_user, y, user_reg, unobserved)
        y = half_step(by_item, x, item_reg, unobserved)
    return x, y
