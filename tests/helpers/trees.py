"""Tree ensembles of tests."""

import numpy as np

from serving.scoring.tree_ensemble import N_FEATURES, Forest


def some_trees():
    rng = np.random.default_rng(3)
    stays = rng.integers(0, 1 << 15, (20, 15)).astype(np.uint32) | np.uint32(1 << 15)  # the last leaf always stays
    thresholds = rng.normal(0, 0.2, (20, 15)).astype(np.float32)
    return Forest(rng.integers(0, N_FEATURES, (20, 15)), thresholds, stays, rng.normal(size=(20, 16)))
