"""Gowalla (LightGCN's split), Recall@20 of iALS over all items not in training: `python tests/bench_gowalla.py`.

Needs `../shared/data/gowalla.parquet` beside the project. LightGCN reports .1824.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from batch.evaluation.ials import fit_ials  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "gowalla.parquet"
K, CHUNK = 20, 2_000


def read():
    """Return (training matrix, test matrix) of ones."""
    table = pl.read_parquet(DATA)
    users, user = np.unique(table["user"].to_numpy(), return_inverse=True)
    items, item = np.unique(table["item"].to_numpy(), return_inverse=True)
    past = (table["split"] == "train").to_numpy()
    shape = (len(users), len(items))
    matrices = []
    for part in (past, ~past):
        matrix = csr_matrix((np.ones(part.sum(), np.float32), (user[part], item[part])), shape)
        matrix.data[:] = 1
        matrices.append(matrix)
    return matrices


def recall(train, test, x, y):
    """Return the mean over users of hits among the K best new items / test items."""
    found = []
    for first in range(0, train.shape[0], CHUNK):
        scores = x[first : first + CHUNK] @ y.T
        for row in range(len(scores)):
            user = first + row
            scores[row, train.indices[train.indptr[user] : train.indptr[user + 1]]] = -np.inf
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        for row in range(len(scores)):
            wanted = set(test.indices[test.indptr[first + row] : test.indptr[first + row + 1]].tolist())
            if wanted:
                found.append(len(wanted & set(top[row].tolist())) / len(wanted))
    return float(np.mean(found))


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--factors", type=int, default=1536)
    options.add_argument("--regularization", type=float, default=0.003)
    options.add_argument("--unobserved", type=float, default=0.01)
    options.add_argument("--iterations", type=int, default=8)
    chosen = options.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA.name} is not beside the project; nothing to measure")
    train, test = read()
    started = time.perf_counter()
    x, y = fit_ials(train, chosen.factors, chosen.regularization, chosen.unobserved, iterations=chosen.iterations)
    seconds = time.perf_counter() - started
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; {train.nnz:,} interactions; one run; {vars(chosen)}")
    print(f"Recall@20 {recall(train, test, x, y):.4f} after {seconds:.0f} s")


if __name__ == "__main__":
    main()
