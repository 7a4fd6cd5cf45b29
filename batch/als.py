"""Implicit ALS (Hu, Koren, Volinsky, ICDM 2008) by the `implicit` package, and how well it does."""

from typing import Any

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from batch.interactions import Interactions

Floats = npt.NDArray[np.float32]
HELD_OUT = 0.1
MAX_USERS = 2_000


def fit(matrix: csr_matrix, factors: int, regularization: float, alpha: float, iterations: int, threads: int) -> Floats:
    """Return the item factors, float32 (n_items, factors); confidence is 1 + alpha · weight."""
    confidence = matrix.copy()
    confidence.data = 1.0 + alpha * confidence.data
    model = AlternatingLeastSquares(
        factors, regularization, alpha=1.0, iterations=iterations, num_threads=threads, random_state=42
    )
    with threadpool_limits(1, "blas"):
        model.fit(confidence, show_progress=False)
    return np.asarray(model.item_factors, np.float32)


def whiten(item_factors: Floats, regularization: float) -> tuple[Floats, Floats]:
    """Return (W = Y L⁻ᵀ, YᵀY) with YᵀY + λI = L Lᵀ."""
    y = item_factors.astype(np.float64)
    gram = y.T @ y
    lower = np.linalg.cholesky(gram + regularization * np.eye(len(gram)))
    return np.ascontiguousarray(np.linalg.solve(lower, y.T).T.astype(np.float32)), gram.astype(np.float32)


def evaluate(
    data: Interactions, factors: int, regularization: float, alpha: float, iterations: int, threads: int
) -> dict[str, Any]:
    """Train on the first 90 % of events by time; return recall@20 of the items first bought after, and popularity's."""
    cut = int(np.quantile(data.ts_ms, 1 - HELD_OUT))
    past = data.ts_ms <= cut
    train, future = data.matrix(past), data.matrix(~past)
    y = fit(train, factors, regularization, alpha, iterations, threads)
    gram = (y.T @ y).astype(np.float64)
    popularity = np.asarray(train.sum(axis=0)).ravel()
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(future.indptr) > 0))
    users = np.random.default_rng(1).permutation(users)[:MAX_USERS]
    found = {"recall@20": [], "popularity.recall@20": []}  # type: dict[str, list[float]]
    for user in users:
        seen, weight = train.indices[train.indptr[user] : train.indptr[user + 1]], train[user].data
        truth = set(future[user].indices) - set(seen)
        if not truth:
            continue
        c = 1.0 + alpha * weight
        rows = y[seen].astype(np.float64)
        a = gram + (rows.T * (c - 1)) @ rows + regularization * np.eye(factors)
        scores = y @ np.linalg.solve(a, rows.T @ c)
        for name, values in (("recall@20", scores), ("popularity.recall@20", popularity.astype(float))):
            ranked = values.copy()
            ranked[seen] = -np.inf
            top = np.argpartition(-ranked, min(20, len(ranked) - 1))[:20]
            found[name].append(len(truth & set(top.tolist())) / min(20, len(truth)))
    return {"users": len(found["recall@20"]), **{name: float(np.mean(v)) if v else None for name, v in found.items()}}
