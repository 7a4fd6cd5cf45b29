"""The same predictions looked at in parts: new to the user, cold users, cold items, one category at a time.

A part is a choice of targets: a prediction counts in it by those of its targets that belong to it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batch.metrics import per_prediction
from batch.training.simulated_shop import Pairs
from schemas.events import Columns
from serving.ranking.mmr_dpp import ALPHA, department

COLD_EVENTS = 10
COLD_MS = 86_400_000
MAX_CATEGORIES = 20

Ids = npt.NDArray[np.uint64]
Categories = Mapping[int, str]
"""Category path by item hash."""


def _figures(ranked: Ids, targets: Sequence[Ids], k: int) -> dict[str, float | None]:
    """Return the mean of every metric over the predictions that have a target, and how many these are."""
    chosen = np.array([len(t) > 0 for t in targets])
    metrics = per_prediction(ranked[chosen], [t for t in targets if len(t)], k) if chosen.any() else {}
    means: dict[str, float | None] = {name: float(values.mean()) for name, values in metrics.items()}
    return {**means, "n": int(chosen.sum())}


def first_seen(train: Columns) -> dict[int, int]:
    """Return when each item was first seen, in ms."""
    items, where = np.unique(train["item"], return_inverse=True)
    first = np.full(len(items), np.iinfo(np.int64).max)
    np.minimum.at(first, where, train["ts_ms"])
    return dict(zip(items.tolist(), first.tolist(), strict=True))


def groups_of(pairs: Pairs, train: Columns) -> dict[str, Sequence[Ids]]:
    """Return the targets of each prediction by group.

    `new_only`: not in the history; `cold_users`: of histories under COLD_EVENTS; `cold_items`: first seen less than
    COLD_MS before the newest training event.
    """
    first, cold_from = first_seen(train), int(train["ts_ms"].max()) - COLD_MS
    nothing = np.zeros(0, np.uint64)
    return {
        "new_only": [t[~np.isin(t, h)] for t, h in zip(pairs.targets, pairs.history, strict=True)],
        "cold_users": [
            t if len(h) < COLD_EVENTS else nothing for t, h in zip(pairs.targets, pairs.history, strict=True)
        ],
        "cold_items": [
            np.array([item for item in t.tolist() if first.get(item, 0) > cold_from], np.uint64) for t in pairs.targets
        ],
    }


def by_group(ranked: Ids, groups: Mapping[str, Sequence[Ids]], k: int) -> dict[str, Any]:
    """Return `new_only.HR@20` and the like for the targets of each group."""
    found: dict[str, Any] = {}
    for name, targets in groups.items():
        found |= {f"{name}.{metric}": value for metric, value in _figures(ranked, targets, k).items()}
    return found


def by_category(ranked: Ids, pairs: Pairs, categories: Categories, k: int) -> dict[str, dict[str, float | None]]:
    """Return the metrics of the targets of each department, of those MAX_CATEGORIES with the most targets."""
    of = [[department(categories.get(item, "")) for item in t.tolist()] for t in pairs.targets]
    counted = Counter(name for names in of for name in names if name)
    return {
        name: _figures(
            ranked, [t[np.array(names, object) == name] for t, names in zip(pairs.targets, of, strict=True)], k
        )
        for name, _ in counted.most_common(MAX_CATEGORIES)
    }


def miscalibration(ranked: Ids, histories: Sequence[Ids], categories: Categories) -> float | None:
    """Return the mean KL divergence of a list's departments from those of its history (Steck, RecSys 2018); 0 is best.

    The list's shares are smoothed with ALPHA of the history's, as there.
    """
    found = []
    for row, history in zip(ranked.tolist(), histories, strict=True):
        wanted, shown = (
            Counter(department(categories[item]) for item in items if item in categories)
            for items in (history.tolist(), row)
        )
        if wanted and shown:
            p = {name: n / wanted.total() for name, n in wanted.items()}
            q = {name: shown[name] / shown.total() for name in p}
            found.append(sum(
                share * np.log(share / ((1 - ALPHA) * q[name] + ALPHA * share))
                for name, share in p.items()
            ))  # fmt: skip
    return float(np.mean(found)) if found else None
