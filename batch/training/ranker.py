"""LambdaMART over the mixture's best candidates: trees on the parts the mixture adds up (docs/model.md).

Trained nightly on the same slices of the past as the mixture's numbers; used only
where it wins on predictions it has not seen.
"""

from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from batch.training.mixture_fit import probabilities
from batch.training.mixture_table import MixtureTable
from serving.scoring.parameters import MixtureParams
from serving.scoring.tree_ensemble import ALL_LEAVES, LEAST_P, MAX_LEAVES, TOP, Forest, leaf_place

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
    "num_threads": 0,
}
TREES = 100

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Uint64s = npt.NDArray[np.uint64]


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
    ln_p = np.log(np.maximum(best, LEAST_P))
    spread = -(p * np.log(np.maximum(p, LEAST_P))).sum(axis=1)
    repeats = (p * (table.place > 0)).sum(axis=1)
    same = np.broadcast_to
    size = best.shape
    parts = [
        pairs[:, :, 0], pairs[:, :, 1], pairs[:, :, 2:].sum(axis=2), shares[:, :, 18:],
        table.factors[rows, order], table.repeat[rows, order],
        np.stack([
            ln_p, ln_p - ln_p[:, :1], same(spread[:, None], size), same(repeats[:, None], size),
            same(best[:, :1], size), table.place[rows, order],
        ], axis=2).astype(np.float32),
    ]  # fmt: skip
    return np.concatenate(parts, axis=2), order, best


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
    data = lgb.Dataset(np.concatenate(xs), np.concatenate(ys).astype(int), group=group)
    return lgb.train(PARAMS, data, TREES)


def forest_of(booster: lgb.Booster) -> Forest:
    """Return the trees as the server evaluates them (`serving.scoring`): the same leaf for every float32 feature."""
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    shape = len(trees), MAX_LEAVES - 1
    forest = Forest(
        np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.full(shape, ALL_LEAVES, np.uint32),
        np.zeros((len(trees), MAX_LEAVES)),
    )  # fmt: skip
    for t, tree in enumerate(trees):
        tests: list[tuple[int, np.float32, int]] = []
        for leaf, value in enumerate(_leaves(tree, 0, tests)):
            forest.value[t, leaf_place(leaf)] = value
        for k, (feature, threshold, stays) in enumerate(tests):
            forest.feature[t, k], forest.threshold[t, k], forest.stays[t, k] = feature, threshold, stays
    return forest


def _leaves(node: dict[str, Any], before: int, tests: list[tuple[int, np.float32, int]]) -> list[float]:
    """Return the values of a subtree's leaves from left to right, `before` others are left of them; add its tests."""
    if "leaf_value" in node:
        return [float(node["leaf_value"])]
    threshold = np.float32(node["threshold"])
    if float(threshold) > node["threshold"]:  # the largest float32 that does not exceed it; compared as doubles
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    left = _leaves(node["left_child"], before, tests)
    gone = ((1 << len(left)) - 1) << before
    tests.append((int(node["split_feature"]), threshold, int(ALL_LEAVES) & ~gone))
    return left + _leaves(node["right_child"], before + len(left), tests)


def ranked_items(booster: lgb.Booster | None, params: MixtureParams, table: MixtureTable, k: int) -> Uint64s:
    """Return each prediction's k best items, (P, k), 0 where there are fewer; equal ones likeliest first."""
    x, order, best = features(params, table)
    score = best.copy()
    if booster is not None:
        score = np.asarray(booster.predict(x.reshape(-1, x.shape[2]), num_threads=1)).reshape(best.shape)
    score[best <= 0] = -np.inf
    rows = np.arange(len(order))[:, None]
    items = np.where(best > 0, table.item[rows, order], np.uint64(0))
    found: Uint64s = items[rows, np.argsort(-score, axis=1, kind="stable")[:, :k]]
    return found
