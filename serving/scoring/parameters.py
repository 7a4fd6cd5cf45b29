"""The 57 numbers of the scoring formula (docs/model.md), and their default for all shops."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class MixtureParams(NamedTuple):
    """Weights of the components, of the log factors, and of the repeat odds."""

    pairs: Floats  # (6, 3): rank bucket x (adj, far, bwd)
    second: Floats  # (2,): second order from seed 0, from seeds 1 and 2
    popularity: Floats  # (2,): one day, all time
    theta: Floats  # (10,): ln support, trend, hits, nearness to session and last item, their squares,
    #                   ln support · ln mass / 10, nearness · ln mass / 5, ln base
    session_bias: Floats  # (2,): current item, earlier items
    power: float
    repeat: Floats  # (2, 11): constant, item factor, ln table, ln support, ln mass, trend, ln(1 + events),
    #                          ln(1 + distinct), nearness to the session, hits, ln base


DEFAULT = MixtureParams(
    pairs=np.array(
        [
            [1.013, 0.395, 0.138],
            [0.359, 0.435, 0.072],
            [0.173, 0.198, 0.075],
            [0.086, 0.144, 0.052],
            [0.049, 0.051, 0.036],
            [0.041, 0.054, 0.030],
        ]
    ),
    second=np.array([0.619, 0.369]),
    popularity=np.array([0.191, 0.266]),
    theta=np.array([-0.079, 0.164, -0.038, 1.162, 1.406, -0.480, 0.841, 0.116, -0.061, -0.198]),
    session_bias=np.array([-1.632, -2.071]),
    power=1.064,
    repeat=np.array(
        [
            [1.120, 0.837, 1.349, -0.012, -0.101, -0.139, 0.578, -0.459, 0.332, -0.038, -0.025],
            [0.991, 0.583, 0.884, -0.052, -0.052, -0.260, 0.229, -0.656, 0.809, -0.070, 0.038],
        ]
    ),
)


def params_from(values: Mapping[str, Any] | None) -> MixtureParams:
    """Return the numbers written down by name (an anchor's `mixture.json`); the default for None."""
    if values is None:
        return DEFAULT
    fields = {name: float(value) if name == "power" else np.array(value, float) for name, value in values.items()}
    return MixtureParams(**fields)  # type: ignore[arg-type]


class ScoreConfig(NamedTuple):
    """Settings of scoring that are not fitted."""

    short_half_life_ms: int
    long_half_life_ms: int
    n_candidates: int


DEFAULT_CONFIG = ScoreConfig(86_400_000, 7 * 86_400_000, 120)
