"""Implicit ALS (Hu, Koren, Volinsky, ICDM 2008) by the `implicit` package."""

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]


def fit(matrix: csr_matrix, factors: int, regularization: float, alpha: float, iterations: int, threads: int) -> Floats:
    """Return the item factors, float32 (n_items, factors); confidence is 1 + alpha · weight."""
    confidence = matrix.copy()
    confidence.data = 1.0 + alpha * confidence.data
    with threadpool_limits(1, "blas"):  # it warns where it finds more
        model = AlternatingLeastSquares(
            factors, regularization, alpha=1.0, iterations=iterations, num_threads=threads, random_state=42
        )
        model.fit(confidence, show_progress=False)
    return np.asarray(model.item_factors, np.float32)


def whiten(item_factors: Floats, regularization: float) -> tuple[Floats, Floats]:
    """Return (W = Y L⁻ᵀ, YᵀY) with YᵀY + λI = L Lᵀ."""
    y = item_factors.astype(np.float64)
    gram = y.T @ y
    lower = np.linalg.cholesky(gram + regularization * np.eye(len(gram)))
    return np.ascontiguousarray(np.linalg.solve(lower, y.T).T.astype(np.float32)), gram.astype(np.float32)


def fold_in(whitened: Floats, confidence: npt.NDArray[np.floating]) -> Floats64:
    """Return the vector (d,) of a user whose items have the factors `whitened` (n, d) and a confidence (n,) above 1.

    The exact half-step in whitened space, in its small form (`flows.fold.foldin`): one system of n equations.
    """
    w = whitened.astype(np.float64)
    right = confidence @ w
    system = w @ w.T + np.diag(1 / (confidence - 1))
    return np.asarray(right - np.linalg.solve(system, w @ right) @ w)


def largest(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """Return the places of the k largest scores, the largest first, equal ones by place."""
    if len(scores) <= k:
        return np.argsort(-scores, kind="stable")
    some = np.argpartition(-scores, k - 1)[:k]
    some = np.flatnonzero(scores >= scores[some].min())  # those that are equal to the last one too
    return some[np.argsort(-scores[some], kind="stable")[:k]]
