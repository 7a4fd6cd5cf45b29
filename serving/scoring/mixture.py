"""The scoring formula: how likely each candidate of a session comes next (docs/model.md).

`score` is its only copy. Serving, fitting, trees and explanations call it on features that
`serving.scoring.features.write_features` made.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.stack_array import stack_array
from schemas.compiled.vector_math import bits_of, exponentials, logarithms, of_bits
from serving.scoring.features import (
    HITS,
    LAST_COSINE,
    LN_BASE,
    LN_SUPPORT,
    LN_TOTAL,
    POPULARITY_ALL_TIME,
    POPULARITY_SHORT,
    SECOND_CURRENT,
    SECOND_EARLIER,
    SESSION_COSINE,
    TREND,
    Features,
    repeat_inputs,
)
from serving.scoring.parameters import MixtureParams
from state.rows.item_rows import MAX_NEIGHBOURS

ALLOW, DEMOTE, EXCLUDE = 0, 1, 2
"""Whether the session's own items may repeat: as often as they do, as any other item, or not at all."""
FLOOR = 1e-5
"""Sum of shares of an item that nothing speaks for."""
ORIGINS = 63
"""The lowest bits of a contribution give way to where it came from: then the largest of them is found by comparing."""

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_gains, _origins = stack_array(np.float64, MAX_NEIGHBOURS), stack_array(np.int64, MAX_NEIGHBOURS)


class Terms(NamedTuple):
    """The formula's terms for each candidate, (M,) each; M as in `Features`."""

    pair_sum: Floats  # Σ weight · share over the pairs
    best_pair: Int64s  # the largest weight · share of a pair, and which it was (`largest_pair`)
    share_sum: Floats  # s: the weighted sum of all shares
    novel: Floats  # n: its probability if repeats were like any other item
    odds: Floats  # ρ: of a repeat; 0 but for the session's own items
    probability: Floats  # P


@njit()
def new_terms(width: int) -> Terms:
    """Return room for the terms of fewer than `width` candidates."""
    return Terms(
        np.zeros(width), np.zeros(width, np.int64), np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
    )  # fmt: skip


@njit_no_refcount()
def rank_bucket(rank: int) -> int:
    """Return which row of `MixtureParams.pairs` a recency rank uses: 0, 1, 2, 3-4, 5-9, 10+."""
    if rank < 3:
        return rank
    if rank < 5:
        return 3
    return 4 if rank < 10 else 5


@njit_no_refcount()
def first_pair(features: Features, r: int) -> int:
    """Return where the pairs of the session's item r begin."""
    return features.pair_end[r - 1] if r > 0 else 0  # type: ignore[no-any-return]


@njit_no_refcount()
def largest_pair(best_pair: int) -> tuple[float, int, int]:
    """Return (largest weight · share of a pair, rank of the session's item, kind: ADJ, FAR or BWD); 0.0: no pair."""
    if best_pair == 0:
        return 0.0, 0, 0
    origin = ORIGINS - (best_pair & ORIGINS)
    return of_bits(best_pair & ~ORIGINS), origin // 3, origin % 3  # type: ignore[call-arg]


@njit_no_refcount(error_model="numpy")
def score(features: Features, n: int, m: int, p: MixtureParams, repeat_mode: int, terms: Terms) -> None:
    """Write the probability that each of `n` candidates comes next, and the terms it is made of.

    With shares f of a candidate j, log factors φ, inputs ψ of the repeat odds and the parameters `p`:

        s_j = FLOOR + Σ_c w_c f_c(j)                              `terms.share_sum`
        n_j ∝ s_j^power · exp(θ·φ_j + [j in session] · bias),  Σ n = 1     `terms.novel`
        ρ_j = exp(repeat·ψ_j) for the session's own items, else 0          `terms.odds`
        P_j = (n_j + ρ_j) / (1 + Σρ)                                       `terms.probability`

    A repeat-explore mixture (RepeatNet: Ren et al., AAAI 2019) whose explore part n is log-linear in a weighted sum of
    item-to-item transition shares; docs/model.md explains it, docs/quality.md has what each part adds. Σ P = 1 over the
    candidates. `repeat_mode` DEMOTE drops ρ, EXCLUDE also n of the session's own items.
    """
    column, ln_total, t = features.column, features.session[LN_TOTAL], p.theta
    second_current, second_earlier = column[SECOND_CURRENT], column[SECOND_EARLIER]
    short, all_time = column[POPULARITY_SHORT], column[POPULARITY_ALL_TIME]
    novel, odds, probability = terms.novel, terms.odds, terms.probability
    _sum_pairs(features, n, m, p, terms)
    for i in range(n):
        terms.share_sum[i] = novel[i] = (
            FLOOR + terms.pair_sum[i] + p.second[0] * second_current[i] + p.second[1] * second_earlier[i]
            + p.popularity[0] * short[i] + p.popularity[1] * all_time[i]
        )  # fmt: skip
    logarithms(novel, n)
    for i in range(n):
        es, el, ln_support = column[SESSION_COSINE, i], column[LAST_COSINE, i], column[LN_SUPPORT, i]
        novel[i] = p.power * novel[i] + (  # θ·φ as `features.log_factors` has φ
            t[0] * ln_support + t[1] * column[TREND, i] + t[2] * column[HITS, i] + t[3] * es + t[4] * el
            + t[5] * es * es + t[6] * el * el + t[7] * ln_support * ln_total / 10.0 + t[8] * es * ln_total / 5.0
            + t[9] * column[LN_BASE, i]
        )  # fmt: skip
        odds[i] = 0.0
    for i in range(m):
        novel[i] += p.session_bias[min(i, 1)]
    exponentials(novel, n)
    if repeat_mode == EXCLUDE:
        novel[:m] = 0.0
    total_novel = total_odds = 0.0
    for i in range(n):
        total_novel += novel[i]
    if repeat_mode == ALLOW:
        for i in range(m):
            inputs, ln_odds = repeat_inputs(features, i), 0.0
            for k in range(len(inputs)):
                ln_odds += p.repeat[min(i, 1), k] * inputs[k]
            odds[i] = math.exp(ln_odds)
            total_odds += odds[i]
    for i in range(n):
        novel[i] = novel[i] / total_novel if total_novel > 0.0 else 0.0
        probability[i] = (novel[i] + odds[i]) / (1.0 + total_odds)


@njit_no_refcount()
def _sum_pairs(features: Features, n: int, m: int, p: MixtureParams, terms: Terms) -> None:
    """Add up the weighted shares of the pairs, and find the largest of each candidate."""
    gains, origins, candidate = _gains(), _origins(), features.pair_candidate
    terms.pair_sum[: n + 1] = 0.0
    terms.best_pair[: n + 1] = 0
    for r in range(m):
        first, weight = first_pair(features, r), p.pairs[rank_bucket(r)]
        n_pairs, origin = features.pair_end[r] - first, ORIGINS - 3 * r  # of equal ones the first
        for j in range(n_pairs):  # side by side
            adj = weight[0] * features.adj[first + j]
            far = weight[1] * features.far[first + j]
            bwd = weight[2] * features.bwd[first + j]
            gains[j] = adj + far + bwd
            best = bits_of(adj) & ~ORIGINS | origin  # type: ignore[call-arg]
            best = max(best, bits_of(far) & ~ORIGINS | origin - 1)  # type: ignore[call-arg]
            origins[j] = max(best, bits_of(bwd) & ~ORIGINS | origin - 2)  # type: ignore[call-arg]
        for j in range(n_pairs):
            i = candidate[first + j]
            terms.pair_sum[i] += gains[j]
            terms.best_pair[i] = max(terms.best_pair[i], origins[j])
