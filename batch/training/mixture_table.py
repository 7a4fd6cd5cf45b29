"""Candidates of past predictions with their features: what the mixture's parameters are fitted to, and trees.

The features are those a server scores: `serving.scoring.features.write_features` writes both (docs/model.md).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batch.training.simulated_shop import Pairs, View
from schemas.compiled.njit import njit
from serving.scoring.expansion_cache import ExpansionCache, new_expansion_cache
from serving.scoring.features import (
    N_COLUMNS,
    Features,
    FeatureScratch,
    FeatureSource,
    new_scratch,
    shop_totals,
    write_features,
)
from serving.scoring.item_features import ItemTable
from serving.scoring.neighbours import read_session
from serving.scoring.parameters import DEFAULT_CONFIG, ScoreConfig
from serving.scoring.sessions import Sessions, padded_sessions
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import ABSENT

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class MixtureTable(NamedTuple):
    """`Features` of the candidates of P predictions, padded to M candidates; pairs one prediction behind the other."""

    n: Int64s  # (P,): candidates
    m: Int64s  # (P,): how many of them, the first ones, are the session's own items
    item: Uint64s  # (P, M)
    target: Int64s  # (P,): where the target stands, -1 when it is no candidate
    column: Floats  # (P, N_COLUMNS, M)
    session: Floats  # (P, 3)
    pair_end: Int64s  # (P, MAX_DISTINCT), counted from the prediction's first pair
    first_pair: Int64s  # (P + 1,): where the pairs of each prediction begin
    pair_candidate: Int32s  # (E,)
    adj: Floats  # (E,)
    far: Floats  # (E,)
    bwd: Floats  # (E,)


@njit()
def features_of(table: MixtureTable, b: int) -> Features:
    """Return the features of prediction b's candidates, as views."""
    first, end = table.first_pair[b], table.first_pair[b + 1]
    return Features(
        table.column[b], table.session[b], table.pair_end[b], table.pair_candidate[first:end], table.adj[first:end],
        table.far[first:end], table.bwd[first:end],
    )  # fmt: skip


@njit()
def _count_pairs(sessions: Sessions, items: ItemTable, scratch: FeatureScratch, first_pair: Int64s) -> None:
    """Write where the pairs of each session begin, and behind the last one where they end."""
    for b in range(len(sessions.n)):
        m, n_pairs = read_session(sessions.item[b], sessions.n[b], items, scratch.session), np.int64(0)
        for r in range(m):
            if scratch.session.slot[r] != ABSENT:
                n_pairs += np.int64(items.rows[scratch.session.slot[r]].n)
        first_pair[b + 1] = first_pair[b] + n_pairs


@njit()
def _fill(sessions: Sessions, source: FeatureSource, scratch: FeatureScratch, out: MixtureTable) -> None:
    for b in range(len(sessions.n)):
        out.n[b], out.m[b] = write_features(sessions.item[b], sessions.n[b], source, scratch, features_of(out, b))
        out.item[b, : out.n[b]] = scratch.candidates.item[: out.n[b]]


@njit()
def _source(items: ItemTable, totals: Int64s, c: ScoreConfig, now_ms: int, expansion: ExpansionCache) -> FeatureSource:
    return FeatureSource(items, shop_totals(totals, c, now_ms), expansion, c.n_candidates)


def mixture_table(view: View, embedding: Floats32, pairs: Pairs, config: ScoreConfig = DEFAULT_CONFIG) -> MixtureTable:
    """Return the features of every candidate of every prediction, from the rows as they are."""
    b, width = len(pairs.target), config.n_candidates + MAX_DISTINCT + 1
    sessions = padded_sessions(pairs.history)
    items = ItemTable(view.rows, view.slots.table, view.slots.slot_at, embedding)
    scratch, first_pair = new_scratch(config.n_candidates, embedding.shape[1]), np.zeros(b + 1, np.int64)
    _count_pairs(sessions, items, scratch, first_pair)
    n_pairs = int(first_pair[-1])
    table = MixtureTable(
        np.zeros(b, np.int64), np.zeros(b, np.int64), np.zeros((b, width), np.uint64), np.full(b, -1, np.int64),
        np.zeros((b, N_COLUMNS, width)), np.zeros((b, 3)), np.zeros((b, MAX_DISTINCT), np.int64), first_pair,
        np.zeros(n_pairs, np.int32), np.zeros(n_pairs), np.zeros(n_pairs), np.zeros(n_pairs),
    )  # fmt: skip
    source = _source(items, view.totals, config, view.now_ms, new_expansion_cache(len(view.rows)))
    _fill(sessions, source, scratch, table)
    hit = (table.item == pairs.target[:, None]) & (table.item != 0)
    table.target[:] = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
    return table
