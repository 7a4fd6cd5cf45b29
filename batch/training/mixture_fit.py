"""Fits the mixture's 57 numbers to a shop's own past: maximum likelihood with the default as the prior.

    minimise −mean ln P(target) + (l2 / 2) · ‖x − x0‖²

P is the server's (`serving.scoring.mixture.score`); only its gradient is here, and a test compares it with finite
differences of P. x holds the weights' logarithms and the other parameters as they are; x0 is the default.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from batch.training.mixture_table import MixtureTable, features_of
from schemas.compiled.njit import njit, njit_no_refcount
from serving.scoring.features import (
    POPULARITY_ALL_TIME,
    POPULARITY_SHORT,
    SECOND_CURRENT,
    SECOND_EARLIER,
    Features,
    log_factors,
    repeat_inputs,
)
from serving.scoring.mixture import ALLOW, Terms, first_pair, new_terms, rank_bucket, score
from serving.scoring.parameters import DEFAULT, MixtureParams

LEAST_PREDICTIONS = 500
ITERATIONS = 80
STRONGEST_PRIOR = 0.1
PRIOR_STRENGTH = 10.0
NOTHING = 1e-12

N_WEIGHTS, N_FACTORS, N_REPEAT = 22, 10, 11
"""Weights of shares (pairs 6 x 3, second order 2, popularity 2), log factors, and inputs of the repeat odds."""
BIAS = N_WEIGHTS + N_FACTORS
POWER = BIAS + 2
ODDS = POWER + 1
SIZE = ODDS + 2 * N_REPEAT

Floats = npt.NDArray[np.float64]


def pack(params: MixtureParams) -> Floats:
    """Return the numbers as one vector: ln w (22), θ (10), b (2), pw, repeat odds (2 x 11)."""
    weights = np.concatenate((params.pairs.ravel(), params.second, params.popularity))
    weights = np.maximum(weights, NOTHING)  # one that is 0 was switched off, and stays
    return np.concatenate((np.log(weights), params.theta, params.session_bias, [params.power], params.repeat.ravel()))


def unpack(x: Floats) -> MixtureParams:
    """Return the numbers of a vector made by `pack`."""
    w = np.exp(x[:N_WEIGHTS])
    return MixtureParams(
        pairs=w[:18].reshape(6, 3), second=w[18:20], popularity=w[20:22], theta=x[N_WEIGHTS:BIAS].copy(),
        session_bias=x[BIAS:POWER].copy(), power=float(x[POWER]), repeat=x[ODDS:].reshape(2, N_REPEAT).copy(),
    )  # fmt: skip


@njit()
def _loss(p: MixtureParams, table: MixtureTable, with_gradient: bool, grad: Floats) -> float:
    """Return −Σ ln P(target) over the predictions whose target is a candidate; add its gradient to `grad`."""
    terms, pull, total = new_terms(table.item.shape[1]), np.empty(table.item.shape[1]), 0.0
    for b in range(len(table.n)):
        target = table.target[b]
        if target < 0:
            continue
        features = features_of(table, b)
        score(features, table.n[b], table.m[b], p, ALLOW, terms)
        total -= math.log(terms.probability[target])
        if with_gradient:
            _add_gradient(features, table.n[b], table.m[b], target, p, terms, pull, grad)
    return total


@njit_no_refcount(fastmath=True)
def _add_gradient(
    features: Features, n: int, m: int, target: int, p: MixtureParams, terms: Terms, pull: Floats, grad: Floats
) -> None:
    """Add the gradient of −ln P(target) in the vector's coordinates, given the terms of `score`.

    With u = n_t + ρ_t of the target t:

        ∂/∂ln n_i = −(n_t / u) (1[i = t] − n_i)          before n is normalised; `pull` holds it times power / s_i
        ∂/∂ln ρ_i = ρ_i / (1 + Σρ) − 1[i = t] ρ_t / u
    """
    u, sum_odds = terms.novel[target] + terms.odds[target], 0.0
    for i in range(m):
        sum_odds += terms.odds[i]
    of_target, column = terms.novel[target] / u, features.column
    for i in range(n):
        g = of_target * (terms.novel[i] - (1.0 if i == target else 0.0))
        pull[i] = g * p.power / terms.share_sum[i]
        factors = log_factors(features, i)
        for k in range(N_FACTORS):
            grad[N_WEIGHTS + k] += g * factors[k]
        grad[POWER] += g * math.log(terms.share_sum[i])
        if i < m:
            which = min(i, 1)
            grad[BIAS + which] += g
            h = terms.odds[i] / (1.0 + sum_odds) - (terms.odds[i] / u if i == target else 0.0)
            inputs = repeat_inputs(features, i)
            for k in range(N_REPEAT):
                grad[ODDS + which * N_REPEAT + k] += h * inputs[k]
    pull[n] = 0.0
    for r in range(m):
        bucket, adj, far, bwd = rank_bucket(r), 0.0, 0.0, 0.0
        for e in range(first_pair(features, r), features.pair_end[r]):
            weight = pull[features.pair_candidate[e]]
            adj += weight * features.adj[e]
            far += weight * features.far[e]
            bwd += weight * features.bwd[e]
        grad[3 * bucket] += p.pairs[bucket, 0] * adj
        grad[3 * bucket + 1] += p.pairs[bucket, 1] * far
        grad[3 * bucket + 2] += p.pairs[bucket, 2] * bwd
    for i in range(n):
        grad[18] += p.second[0] * pull[i] * column[SECOND_CURRENT, i]
        grad[19] += p.second[1] * pull[i] * column[SECOND_EARLIER, i]
        grad[20] += p.popularity[0] * pull[i] * column[POPULARITY_SHORT, i]
        grad[21] += p.popularity[1] * pull[i] * column[POPULARITY_ALL_TIME, i]


def loss_and_gradient(x: Floats, tables: list[MixtureTable]) -> tuple[float, Floats]:
    """Return −Σ ln P(target) over the predictions whose target is a candidate, and its gradient at `x`."""
    grad, params = np.zeros(SIZE), unpack(x)
    return sum(_loss(params, table, True, grad) for table in tables), grad


def log_likelihood(params: MixtureParams, tables: list[MixtureTable]) -> float:
    """Return the mean of ln P(target) over the predictions whose target is a candidate."""
    n = sum(int((table.target >= 0).sum()) for table in tables)
    return -sum(_loss(params, table, False, np.zeros(SIZE)) for table in tables) / max(n, 1)


class Fit(NamedTuple):
    """Fitted numbers, and how they compare on a slice they have not seen."""

    params: MixtureParams
    predictions: int
    before: float
    after: float
    kept: bool


def fit_mixture(train: list[MixtureTable], judge: MixtureTable | None, start: MixtureParams = DEFAULT) -> Fit:
    """Return the numbers fitted to `train`; `start` where there is too little, or `judge` likes it better."""
    n = sum(int((table.target >= 0).sum()) for table in train)
    if n < LEAST_PREDICTIONS:
        return Fit(start, n, 0.0, 0.0, False)
    x0, l2 = pack(start), min(STRONGEST_PRIOR, PRIOR_STRENGTH / n)

    def objective(x: Floats) -> tuple[float, Floats]:
        loss, grad = loss_and_gradient(x, train)
        return loss / n + l2 / 2 * float(((x - x0) ** 2).sum()), grad / n + l2 * (x - x0)

    found = minimize(objective, x0, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    fitted = unpack(found.x)
    judged = train if judge is None else [judge]
    before, after = log_likelihood(start, judged), log_likelihood(fitted, judged)
    return Fit(fitted if after > before else start, n, before, after, after > before)


@njit()
def _probabilities(p: MixtureParams, table: MixtureTable, out: Floats) -> None:
    terms = new_terms(table.item.shape[1])
    for b in range(len(table.n)):
        n = table.n[b]
        score(features_of(table, b), n, table.m[b], p, ALLOW, terms)
        out[b, :n] = terms.probability[:n]


def probabilities(params: MixtureParams, table: MixtureTable) -> Floats:
    """Return P of every candidate, (P, M), as the scorer gives it; 0 behind a prediction's candidates."""
    out = np.zeros(table.item.shape)
    _probabilities(params, table, out)
    return out
