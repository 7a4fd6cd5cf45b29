import json
import os
import subprocess
import sys

import numpy as np
import pytest

from batch.metrics import bootstrap, over_all, per_prediction

K = 10


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(3)
    ranked = np.array([rng.choice(np.arange(1, 60), 20, replace=False) for _ in range(80)], np.uint64)
    targets = [rng.choice(np.arange(1, 60), rng.integers(1, 15), replace=False).astype(np.uint64) for _ in range(80)]
    return ranked, targets


THEIRS = """
import json, sys, ranx
asked = json.load(sys.stdin)
print(json.dumps(ranx.evaluate(ranx.Qrels(asked["relevant"]), ranx.Run(asked["run"]), asked["metrics"])))
"""
NAMES = {
    "HR@10": "hit_rate@10", "MRR@10": "mrr@10", "NDCG@10": "ndcg@10", "recall@10": "recall@10",
    "precision@10": "precision@10",
}  # fmt: skip


@pytest.mark.process
def test_metrics_equal_those_of_ranx(predictions):
    """Ranx runs uncompiled, in a process of its own: its kernels take half a minute to compile."""
    ranked, targets = predictions
    asked = {
        "relevant": {f"q{i}": {f"d{t}": 1 for t in one} for i, one in enumerate(targets)},
        "run": {f"q{i}": {f"d{d}": 1.0 - n / 100 for n, d in enumerate(row)} for i, row in enumerate(ranked)},
        "metrics": list(NAMES.values()),
    }
    done = subprocess.run(
        [sys.executable, "-c", THEIRS], input=json.dumps(asked), env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, theirs = per_prediction(ranked, targets, K), json.loads(done.stdout)
    assert {name: ours[name].mean() for name in NAMES} == pytest.approx({n: theirs[t] for n, t in NAMES.items()})


def test_average_precision_and_capped_recall_by_hand():
    ranked = np.array([[5, 1, 6, 2, 7]], np.uint64)
    found = per_prediction(ranked, [np.array([1, 2, 3], np.uint64)], 5)
    assert found["MAP@5"][0] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["recall_capped@5"][0] == pytest.approx(2 / 3)
    assert found["precision_of_oracle@5"][0] == pytest.approx(2 / 3)


def test_breadth_of_equal_and_of_lonely_exposure():
    equal = over_all(np.array([[1, 2], [3, 4]], np.uint64), 2, {1: 1, 2: 1, 3: 1, 4: 1}, 4)
    assert (equal["coverage@2"], equal["gini@2"]) == (1.0, 0.0)
    lonely = over_all(np.array([[1], [1]], np.uint64), 1, {1: 98, 2: 1, 3: 1}, 10)
    assert lonely["coverage@1"] == 0.1
    assert lonely["gini@1"] == pytest.approx(0.9)
    assert lonely["novelty_bits@1"] < equal["novelty_bits@2"]


def test_the_interval_holds_the_mean():
    values = np.random.default_rng(1).integers(0, 2, 500).astype(float)
    intervals = bootstrap({"values": values, "none": np.zeros(500)})
    low, high = intervals["values"]
    assert intervals["none"] == (0, 0)
    assert bootstrap({"one": np.array([0.5])}) == {"one": (0.5, 0.5)}
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 500), rel=0.15)
