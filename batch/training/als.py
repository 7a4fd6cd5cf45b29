"""Implicit ALS (Hu, Koren, Volinsky, ICDM 2008) by the `implicit` package, and how well it does."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from batch.training.interactions import Interactions

Floats = npt.NDArray[np.float32]
HELD_OUT = 0.1
MAX_USERS = 2_000


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


class HeldOut(NamedTuple):
    """The past and the newest tenth of the events, as matrices, and the users who are in both."""

    train: csr_matrix
    future: csr_matrix
    users: npt.NDArray[np.int64]


def hold_out(data: Interactions, cut_ms: int | None = None) -> HeldOut:
    """Split the events at `cut_ms`, by default before the newest tenth; at most MAX_USERS users are judged."""
    past = data.ts_ms <= (int(np.quantile(data.ts_ms, 1 - HELD_OUT)) if cut_ms is None else cut_ms)
    train, future = data.matrix(past), data.matrix(~past)
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(future.indptr) > 0))
    return HeldOut(train, future, np.random.default_rng(1).permutation(users)[:MAX_USERS])


def recall(split: HeldOut, whitened: Floats, alpha: float) -> dict[str, float | None]:
    """Return recall@20 (capped) of items new to the user, by folded-in vectors and by popularity.

    `whitened` (n_items, d): factors W = Y L⁻ᵀ of any model, zeros for items it does not know.
    """
    popularity = np.asarray(split.train.sum(axis=0)).ravel().astype(float)
    found: dict[str, list[float]] = {"recall@20": [], "popularity.recall@20": []}
    w = whitened.astype(np.float64)
    for user in split.users:
        seen = split.train.indices[split.train.indptr[user] : split.train.indptr[user + 1]]
        truth = set(split.future[user].indices) - set(seen)
        if not truth:
            continue
        c = 1.0 + alpha * split.train[user].data
        a = np.eye(w.shape[1]) + (w[seen].T * (c - 1)) @ w[seen]
        scores = w @ np.linalg.solve(a, w[seen].T @ c)
        for name, values in (("recall@20", scores), ("popularity.recall@20", popularity)):
            ranked = values.copy()
            ranked[seen] = -np.inf
            top = np.argpartition(-ranked, min(20, len(ranked) - 1))[:20]
            found[name].append(len(truth & set(top.tolist())) / min(20, len(truth)))
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}
