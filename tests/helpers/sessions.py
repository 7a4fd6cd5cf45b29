"""Sessions of made-up visitors, for tests of training and evaluation."""

import numpy as np

from batch.training.simulated_shop import columns_of

GAP_MS = 1_800_000


def walk(n_sessions, seed, n_items=40, follow=0.7):
    """Sessions over a ring of items: the next one follows, mostly."""
    rng = np.random.default_rng(seed)
    user, item, ts = [], [], []
    for s in range(n_sessions):
        at = int(rng.integers(n_items))
        for k in range(int(rng.integers(2, 7))):
            user.append(s + 1)
            item.append(at + 1)
            ts.append(s * 10_000_000 + k * 1000)
            at = (at + 1) % n_items if rng.random() < follow else int(rng.integers(n_items))
    return columns_of(np.array(user, np.uint64), np.array(item, np.uint64), np.array(ts, np.int64))
