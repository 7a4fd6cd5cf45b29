"""Ranking metrics over full rankings, each prediction with one or several targets.

HR, MRR, precision, recall, NDCG and MAP as in Manning, Raghavan, Schütze, "Introduction to
Information Retrieval" (2008), ch. 8; binary NDCG with log2 discount (Järvelin, Kekäläinen, TOIS
2002); Gini of exposure and catalogue coverage as in Shani, Gunawardana, "Evaluating Recommendation
Systems" (2011); novelty as mean self-information in bits (Vargas, Castells, RecSys 2011).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap as scipy_bootstrap

Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
SEED = 7
AT_ONCE = 50
"""Resamples that are in memory."""


def hits_of(ranked: Ids, targets: Sequence[Ids]) -> npt.NDArray[np.bool_]:
    """Return which of the ranked items are targets, (P, k); 0 is no item."""
    n = np.array([len(wanted) for wanted in targets])
    if len(n) and n.max() == 1:  # side by side
        only = np.zeros(len(n), np.uint64)
        only[n == 1] = np.concatenate([np.zeros(0, np.uint64), *targets])
        return np.asarray((ranked == only[:, None]) & (ranked != 0))
    return np.stack([np.isin(row, wanted) & (row != 0) for row, wanted in zip(ranked, targets, strict=True)])


def per_prediction(ranked: Ids, targets: Sequence[Ids], k: int) -> dict[str, Floats]:
    """Return every metric of each prediction at cut-off k, (P,)."""
    hits = hits_of(ranked[:, :k], targets)
    n_targets = np.array([max(len(t), 1) for t in targets], float)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    found = hits.sum(axis=1)
    ideal = np.cumsum(discount)[np.minimum(n_targets, k).astype(int) - 1]
    precision_at = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    best = np.minimum(n_targets, k)
    return {
        f"HR@{k}": hits.any(axis=1).astype(float),
        f"MRR@{k}": np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0),
        f"NDCG@{k}": (hits * discount[: hits.shape[1]]).sum(axis=1) / ideal,
        f"recall@{k}": found / n_targets,
        f"recall_capped@{k}": found / best,
        f"precision@{k}": found / k,
        f"precision_of_oracle@{k}": (found / k) / (best / k),
        f"MAP@{k}": (precision_at * hits).sum(axis=1) / best,
    }


def over_all(ranked: Ids, k: int, popularity: dict[int, float], n_items: int) -> dict[str, float]:
    """Return coverage, Gini of exposure and novelty of the lists as a whole.

    `popularity`: events by item of the training part.
    """
    shown = ranked[:, :k].ravel()
    shown = shown[shown != 0]
    items, counts = np.unique(shown, return_counts=True)
    exposure = np.sort(np.concatenate((np.zeros(max(n_items - len(items), 0)), counts)))
    n, total = len(exposure), exposure.sum()
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ exposure / (n * total)) if n and total else 0.0
    events = max(sum(popularity.values()), 1.0)
    seen = np.array([popularity.get(int(item), 0.0) for item in items])
    bits = -np.log2((seen + 1.0) / (events + n_items))
    return {
        f"coverage@{k}": len(items) / max(n_items, 1),
        f"gini@{k}": gini,
        f"novelty_bits@{k}": float((bits * counts).sum() / max(counts.sum(), 1)),
    }


def bootstrap(values: Mapping[str, Floats], rounds: int = 1_000, seed: int = SEED) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of means by resampling the predictions (Efron, Tibshirani 1993).

    `values`: (P,) by name, all of the same predictions, which are drawn once for all names.
    """
    table = np.array(list(values.values()))
    if table.shape[1] < 2:
        return {name: (float(one.sum()),) * 2 for name, one in values.items()}
    found = scipy_bootstrap(
        (table,), np.mean, n_resamples=rounds, batch=AT_ONCE, method="percentile", vectorized=True, axis=-1,
        random_state=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return {name: (float(low), float(high)) for name, low, high in zip(values, found.low, found.high, strict=True)}


def difference(ranked: Ids, others: Ids, targets: Sequence[Ids]) -> tuple[float, float]:
    """Return (how much HR is above that of other lists for the same predictions, half of its 95 % interval)."""
    own, theirs = (hits_of(some, targets).any(axis=1).astype(float) for some in (ranked, others))
    gain = own - theirs
    return float(gain.mean()), float(1.96 * gain.std() / np.sqrt(len(gain)))
