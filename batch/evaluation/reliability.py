"""Do things said to be likely at 10 % happen in 10 % of the cases? (Naeini, Cooper, Hauskrecht, AAAI 2015)."""

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10


def reliability(
    probability: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]
) -> tuple[list[dict[str, Any]], float]:
    """Return (bins of shown items by their P, as many items in each; expected calibration error).

    `probability` and `hits` (P, k); places without an item have P 0 and are passed over. The error is the
    mean over items of |mean P − share of hits| of their bin.
    """
    there = probability > 0
    p, hit = probability[there], hits[there].astype(float)
    order = np.argsort(p, kind="stable")
    bins, error = [], 0.0
    for part in np.array_split(order, BINS):
        if len(part):
            said, came = float(p[part].mean()), float(hit[part].mean())
            bins.append({"said": said, "came": came, "n": len(part)})
            error += abs(said - came) * len(part)
    return bins, error / max(len(p), 1)
