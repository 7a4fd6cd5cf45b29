"""Fits the mixture's 57 numbers to a shop's own past: maximum likelihood with the default as the prior.

    P(j) = (n_j + ρ_j) / (1 + Σρ),   n_j ∝ (floor + Σ_c w_c f_c(j))^pw · exp(θ·φ_j + b_z)
    minimise −mean ln P(target) + (l2 / 2) · ‖x − x0‖²

(docs/model.md; the gradient is the formula's own.)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from batch.training.mixture_table import CURRENT, N_FACTORS, N_REPEAT, N_SHARES, NOVEL, MixtureTable
from schemas.compiled.njit import njit
from serving.scoring.parameters import DEFAULT, MixtureParams
from serving.scoring.scorer import FLOOR

LEAST_PREDICTIONS = 500
ITERATIONS = 80
STRONGEST_PRIOR = 0.1
PRIOR_STRENGTH = 10.0
NOTHING = 1e-12

BIAS = N_SHARES + N_FACTORS
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
    w = np.exp(x[:N_SHARES])
    return MixtureParams(
        pairs=w[:18].reshape(6, 3), second=w[18:20], popularity=w[20:22], theta=x[N_SHARES:BIAS].copy(),
        session_bias=x[BIAS:POWER].copy(), power=float(x[POWER]), repeat=x[ODDS:].reshape(2, N_REPEAT).copy(),
    )  # fmt: skip


@njit(fastmath=True)
def _loss(x: Floats, table: MixtureTable, grad: Floats) -> float:
    """Return −Σ ln P(target) over the predictions whose target is a candidate; add its gradient to `grad`."""
    w = np.exp(x[:N_SHARES])
    power, total = x[POWER], 0.0
    width = table.item.shape[1]
    novel, sums, odds = np.empty(width), np.empty(width), np.empty(width)
    d_novel = np.empty(width)
    for b in range(len(table.n)):
        target = table.target[b]
        if target < 0:
            continue
        n = table.n[b]
        top = -1e300
        for i in range(n):
            share = FLOOR
            for c in range(N_SHARES):
                share += w[c] * table.shares[b, i, c]
            sums[i] = share
            ln = power * np.log(share)
            for k in range(N_FACTORS):
                ln += x[N_SHARES + k] * table.factors[b, i, k]
            z = table.place[b, i]
            odds[i] = 0.0
            if z != NOVEL:
                which = 0 if z == CURRENT else 1
                ln += x[BIAS + which]
                value = 0.0
                for k in range(N_REPEAT):
                    value += x[ODDS + which * N_REPEAT + k] * table.repeat[b, i, k]
                odds[i] = np.exp(value)
            novel[i] = ln
            top = max(top, ln)
        mass = sum_odds = 0.0
        for i in range(n):
            novel[i] = np.exp(novel[i] - top)
            mass += novel[i]
            sum_odds += odds[i]
        for i in range(n):
            novel[i] /= mass
        u = novel[target] + odds[target]
        total -= np.log(u / (1.0 + sum_odds))
        pull = novel[target] / u
        for i in range(n):
            d_novel[i] = -pull * ((1.0 if i == target else 0.0) - novel[i])
            g = d_novel[i]
            for c in range(N_SHARES):
                grad[c] += g * power * w[c] * table.shares[b, i, c] / sums[i]
            for k in range(N_FACTORS):
                grad[N_SHARES + k] += g * table.factors[b, i, k]
            grad[POWER] += g * np.log(sums[i])
            z = table.place[b, i]
            if z != NOVEL:
                which = 0 if z == CURRENT else 1
                grad[BIAS + which] += g
                h = odds[i] / (1.0 + sum_odds) - (odds[i] / u if i == target else 0.0)
                for k in range(N_REPEAT):
                    grad[ODDS + which * N_REPEAT + k] += h * table.repeat[b, i, k]
    return total


def log_likelihood(params: MixtureParams, tables: list[MixtureTable]) -> float:
    """Return the mean of ln P(target) over the predictions whose target is a candidate."""
    x, n = pack(params), sum(int((table.target >= 0).sum()) for table in tables)
    return -sum(_loss(x, table, np.zeros(SIZE)) for table in tables) / max(n, 1)


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
        grad = np.zeros(SIZE)
        loss = sum(_loss(x, table, grad) for table in train)
        return loss / n + l2 / 2 * float(((x - x0) ** 2).sum()), grad / n + l2 * (x - x0)

    found = minimize(objective, x0, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    fitted = unpack(found.x)
    judged = train if judge is None else [judge]
    before, after = log_likelihood(start, judged), log_likelihood(fitted, judged)
    return Fit(fitted if after > before else start, n, before, after, after > before)


@njit(fastmath=True)
def _probabilities(x: Floats, table: MixtureTable, out: Floats) -> None:
    w = np.exp(x[:N_SHARES])
    for b in range(len(table.n)):
        n, top = table.n[b], -1e300
        for i in range(n):
            share = FLOOR
            for c in range(N_SHARES):
                share += w[c] * table.shares[b, i, c]
            ln = x[POWER] * np.log(share)
            for k in range(N_FACTORS):
                ln += x[N_SHARES + k] * table.factors[b, i, k]
            if table.place[b, i] != NOVEL:
                ln += x[BIAS + (0 if table.place[b, i] == CURRENT else 1)]
            out[b, i] = ln
            top = max(top, ln)
        mass = sum_odds = 0.0
        for i in range(n):
            out[b, i] = np.exp(out[b, i] - top)
            mass += out[b, i]
        for i in range(n):
            out[b, i] /= mass
            if table.place[b, i] != NOVEL:
                which = 0 if table.place[b, i] == CURRENT else 1
                value = 0.0
                for k in range(N_REPEAT):
                    value += x[ODDS + which * N_REPEAT + k] * table.repeat[b, i, k]
                out[b, i] += np.exp(value)
                sum_odds += np.exp(value)
        for i in range(n):
            out[b, i] /= 1.0 + sum_odds


def probabilities(params: MixtureParams, table: MixtureTable) -> Floats:
    """Return P of every candidate, (P, M), as the scorer gives it; 0 behind a prediction's candidates."""
    out = np.zeros(table.item.shape)
    _probabilities(pack(params), table, out)
    return out
