"""Is a new anchor better than the live one? Both answer the same predictions, with the lists that a server shows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from batch.metrics import bootstrap, difference, per_prediction
from batch.training.served_lists import Factors, HeldOut, K, Scoring

STRATEGIES = ("hybrid", "collaborative")
"""Strategies of the API that an anchor changes."""
METRICS = (f"HR@{K}", f"MRR@{K}", f"NDCG@{K}")
DECIDES = f"HR@{K}"
LEAST_JUDGED = 50
"""Predictions that decide between two anchors."""

Ids = npt.NDArray[np.uint64]


class Live(NamedTuple):
    """How the live anchor does."""

    version: str
    figures: Mapping[str, Any]
    """By strategy, as `Quality.strategies`."""
    lists: Mapping[str, Ids] | None = None
    """Its lists for the same predictions; None: it has learned from them, and the figures are those of its training."""


class Refused(Exception):
    """The new anchor is worse than the live one."""


def lists_of(visits: HeldOut, scoring: Scoring, factors: Factors) -> dict[str, Ids]:
    """Return the lists of each strategy of STRATEGIES, (P, K)."""
    near = visits.near(factors)
    return {"hybrid": visits.hybrid(visits.scored(scoring), near), "collaborative": visits.collaborative(near)}


def figures_of(lists: Mapping[str, Ids], target: Ids) -> dict[str, dict[str, Any]]:
    """Return METRICS and their intervals by strategy."""
    found = {}
    for strategy, ranked in lists.items():
        each = per_prediction(ranked, list(target[:, None]), K)
        means: dict[str, Any] = {name: float(each[name].mean()) for name in METRICS}
        found[strategy] = means | {"interval": bootstrap({name: each[name] for name in METRICS})}
    return found


def compare(visits: HeldOut, lists: Mapping[str, Ids], live: Live | None) -> dict[str, Any]:
    """Return the figures of a new anchor's lists and of popularity, and how they compare with the live anchor's."""
    found: dict[str, Any] = {"predictions": len(visits), "strategies": {}, "live": None}
    if len(visits):
        found["strategies"] = figures_of({**lists, "popular": visits.popular()}, visits.target)
    if live is None or not len(visits):
        return found
    found["live"] = {"version": live.version, "same_predictions": live.lists is not None, "strategies": live.figures}
    found["difference"] = {
        name: difference(lists[name], live.lists[name], list(visits.target[:, None])) if live.lists is not None
        else _unpaired(found["strategies"][name], live.figures[name])
        for name in STRATEGIES if name in live.figures
    }  # fmt: skip
    return found


def _unpaired(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[float, float]:
    """Return the difference of figures of different predictions, and half of the interval of the new one."""
    low, high = new["interval"][DECIDES]
    return new[DECIDES] - old[DECIDES], (high - low) / 2


def why_worse(found: Mapping[str, Any], tolerance: float) -> str | None:
    """Return what is worse about a new anchor, None where nothing is.

    A strategy is worse that finds less than the live one by more than `tolerance` of it, and by more than chance.
    Fewer than LEAST_JUDGED predictions decide nothing.
    """
    if found["predictions"] < LEAST_JUDGED:
        return None
    for strategy, (gain, half) in found.get("difference", {}).items():
        old = found["live"]["strategies"][strategy][DECIDES]
        if -gain > max(tolerance * old, half):
            return (f"`{strategy}` has {DECIDES} {old + gain:.4f}, with the live anchor {found['live']['version']} "
                    f"{old:.4f} ({100 * gain:+.2f} ± {100 * half:.2f} points)")  # fmt: skip
    return None
