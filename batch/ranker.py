"""LambdaMART over the mixture's best candidates: trees on the parts the mixture adds up (docs/model.md).

Trained nightly on the same slices of the past as the mixture's numbers; used only
where it wins on predictions it has not seen.
"""

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from batch.mixture_fit import probabilities
from batch.mixture_table import NOVEL, MixtureTable
from serving.mixture import MixtureParams

TOP = 60
LEAST_PREDICTIONS = 2_000
PARAMS = {
    "objective": "lambdarank",
    "num_leaves": 15,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "verbosity": -1,
    "seed": 42,
    "deterministic": True,
    "num_threads": 1,
}
TREES = 100

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]


def features(params: MixtureParams, table: MixtureTable) -> tuple[Features, npt.NDArray[np.int64], Floats]:
    """Return (features of each prediction's TOP candidates, which they are, their P), likeliest first.

    Shapes (P, TOP, F), (P, TOP), (P, TOP); a place behind the last candidate has P 0.
    """
    p = probabilities(params, table)
    order = np.argsort(-p, axis=1, kind="stable")[:, :TOP]
    rows = np.arange(len(p))[:, None]
    best = p[rows, order]
    shares = table.shares[rows, order]
    pairs = shares[:, :, :18].reshape(*shares.shape[:2], 6, 3)
    ln_p = np.log(np.maximum(best, 1e-12))
    spread = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
    repeats = (p * (table.place > 0)).sum(axis=1)
    same = np.broadcast_to
    size = best.shape
    parts = [
        pairs[:, :, 0], pairs[:, :, 1], pairs[:, :, 2:].sum(axis=2), shares[:, :, 18:],
        table.factors[rows, order], table.repeat[rows, order],
        np.stack([
            ln_p, ln_p - ln_p[:, :1], same(spread[:, None], size), same(repeats[:, None], size),
            same(best[:, :1], size), table.place[rows, order],
        ], axis=2),
    ]  # fmt: skip
    return np.concatenate(parts, axis=2).astype(np.float32), order, best


def train_ranker(params: MixtureParams, tables: list[MixtureTable]) -> lgb.Booster | None:
    """Return the trees, None where fewer than LEAST_PREDICTIONS have their target among the best."""
    xs, ys, groups = [], [], []
    for table in tables:
        x, order, best = features(params, table)
        label = (order == table.target[:, None]) & (table.target[:, None] >= 0)
        used = label.any(axis=1)
        there = best[used] > 0
        xs.append(x[used][there])
        ys.append(label[used][there])
        groups.append(there.sum(axis=1))
    group = np.concatenate(groups)
    if len(group) < LEAST_PREDICTIONS:
        return None
    data = lgb.Dataset(np.concatenate(xs), np.concatenate(ys).astype(int), group=group, free_raw_data=False)
    return lgb.train(PARAMS, data, TREES)


def ranked_items(
    booster: lgb.Booster | None, params: MixtureParams, table: MixtureTable, k: int, drop_seen: bool = False
) -> npt.NDArray[np.uint64]:
    """Return each prediction's k best items, (P, k), 0 where there are fewer; ties by id hash.

    `drop_seen` leaves out the session's own items.
    """
    x, order, best = features(params, table)
    score = best.copy()
    if booster is not None:
        score = np.asarray(booster.predict(x.reshape(-1, x.shape[2]), num_threads=1)).reshape(best.shape)
    if drop_seen:
        best = np.where(table.place[np.arange(len(order))[:, None], order] > NOVEL, 0.0, best)
    score[best <= 0] = -np.inf
    items = table.item[np.arange(len(order))[:, None], order]
    items = np.where(best > 0, items, np.uint64(0))
    out = np.zeros((len(items), k), np.uint64)
    for b in range(len(items)):
        by = np.lexsort((items[b], -score[b]))[:k]
        out[b, : len(by)] = items[b][by]
    return out
