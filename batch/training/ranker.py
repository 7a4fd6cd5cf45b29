"""LambdaMART over the mixture's best candidates: trees on the parts the mixture adds up (docs/model.md).

Trained nightly on the same slices of the past as the mixture's numbers; used only
where it wins on predictions it has not seen.
"""

from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from batch.training.mixture_table import MixtureTable, features_of
from schemas.compiled.njit import njit
from serving.scoring.mixture import ALLOW, new_terms, score
from serving.scoring.parameters import MixtureParams
from serving.scoring.scorer import likeliest_first
from serving.scoring.tree_ensemble import ALL_LEAVES, MAX_LEAVES, Forest, leaf_place
from serving.scoring.tree_features import N_FEATURES, N_PAIRS, TOP, write_tree_features

Booster = lgb.Booster
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
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


@njit()
def _fill(p: MixtureParams, table: MixtureTable, out: Features, order: Int64s, best: Floats) -> None:
    width = table.item.shape[1]
    terms, keys, likeliest = new_terms(width), np.empty(width, np.int64), np.empty(width, np.int64)
    pairs, side_by_side = np.empty((width, N_PAIRS), np.float32), np.empty((N_FEATURES, TOP), np.float32)
    for b in range(len(table.n)):
        n, m, features = table.n[b], table.m[b], features_of(table, b)
        score(features, n, m, p, ALLOW, terms)
        likeliest_first(terms.probability[:n], table.item[b], keys, likeliest)
        n_top = write_tree_features(features, terms.probability, likeliest[:n], m, pairs, side_by_side)
        for k in range(n_top):
            order[b, k], best[b, k] = likeliest[k], terms.probability[likeliest[k]]
            out[b, k] = side_by_side[:, k]


def tree_inputs(params: MixtureParams, table: MixtureTable) -> tuple[Features, Int64s, Floats]:
    """Return (features of each prediction's TOP candidates, which they are, their P), likeliest first, as a server has.

    Shapes (P, TOP, F), (P, TOP), (P, TOP); a place behind the last candidate has P 0.
    """
    n = len(table.n)
    out, order = np.zeros((n, TOP, N_FEATURES), np.float32), np.zeros((n, TOP), np.int64)
    best = np.zeros((n, TOP))
    _fill(params, table, out, order, best)
    return out, order, best


def train_ranker(params: MixtureParams, tables: list[MixtureTable]) -> Booster | None:
    """Return the trees, None where fewer than LEAST_PREDICTIONS have their target among the best."""
    xs, ys, groups = [], [], []
    for table in tables:
        x, order, best = tree_inputs(params, table)
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


def forest_of(booster: Booster) -> Forest:
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


def ranked_items(booster: Booster | None, params: MixtureParams, table: MixtureTable, k: int) -> Uint64s:
    """Return each prediction's k best items, (P, k), 0 where there are fewer; equal ones likeliest first."""
    x, order, best = tree_inputs(params, table)
    score = best.copy()
    if booster is not None:
        score = np.asarray(booster.predict(x.reshape(-1, x.shape[2]), num_threads=1)).reshape(best.shape)
    score[best <= 0] = -np.inf
    rows = np.arange(len(order))[:, None]
    items = np.where(best > 0, table.item[rows, order], np.uint64(0))
    found: Uint64s = items[rows, np.argsort(-score, axis=1, kind="stable")[:, :k]]
    return found
