"""What a night makes of a shop's past: embedding, fitted mixture, and trees where they win."""

from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from batch.embedding import embed
from batch.mixture_fit import Fit, fit_mixture
from batch.mixture_table import MixtureTable, mixture_table
from batch.ranker import ranked_items, train_ranker
from batch.shop import Shop, pairs_of, sessions_by_end
from flows.lane import LaneSettings
from schemas.events import FIRST_NEGATIVE_KIND, Columns
from serving.mixture import DEFAULT, MixtureParams

SLICES = ((0.8, 0.9), (0.9, 1.0))
"""Shares of the sessions: counts of those before, predictions for those within. They end where the counts that
will be used end, so that the numbers meet rows about as full as those they were fitted to."""
PREDICTIONS = 7_000
TOP = 20


class Night(NamedTuple):
    """The fitted numbers, and trees or None."""

    fit: Fit
    ranker: lgb.Booster | None
    ranker_gain: float | None
    """MRR@20 the trees add on the last slice when trained on the one before; None when there was too little."""


def slices_of(events: Columns, settings: LaneSettings) -> list[MixtureTable]:
    """Return the mixture's parts for predictions in the newest sessions, from the counts before them."""
    session = sessions_by_end(events["user"], events["ts_ms"], settings.session_gap_ms)
    positive = (events["item"] != 0) & (events["kind"] < FIRST_NEGATIVE_KIND)
    n_sessions = int(session.max()) + 1 if len(session) else 0
    n_users, n_items = len(np.unique(events["user"])), len(np.unique(events["item"]))
    tables = []
    for low, high in SLICES:
        shop = Shop(n_users, n_items, settings)
        shop.learn(events[session < low * n_sessions])
        within = (session >= low * n_sessions) & (session < high * n_sessions) & positive
        pairs = pairs_of(session[within], events["item"][within], PREDICTIONS)
        view = shop.view()
        if len(pairs.target) and len(view.slots):
            tables.append(mixture_table(view, embed(view.rows, view.slots), pairs))
    return tables


def fit_night(events: Columns, settings: LaneSettings, with_ranker: bool = True) -> Night:
    """Fit to the events' own past. What loses on the newest slice against what was before is not kept."""
    tables = slices_of(events, settings)
    if len(tables) < len(SLICES):
        return Night(Fit(DEFAULT, 0, 0.0, 0.0, False), None, None)
    tried = fit_mixture(tables[:1], tables[1])
    fit = fit_mixture(tables, None) if tried.kept else tried
    judged = Fit(fit.params, fit.predictions, tried.before, tried.after, tried.kept)
    if not with_ranker:
        return Night(judged, None, None)
    gain = _ranker_gain(tried.params, tables)
    ranker = train_ranker(fit.params, tables) if gain is not None and gain > 0 else None
    return Night(judged, ranker, gain)


def _ranker_gain(params: MixtureParams, tables: list[MixtureTable]) -> float | None:
    ranker = train_ranker(params, tables[:1])
    if ranker is None:
        return None
    judge = tables[1]
    target = judge.item[np.arange(len(judge.n)), np.maximum(judge.target, 0)]
    gains = [_mrr(ranked_items(one, params, judge, TOP), target, judge.target >= 0) for one in (ranker, None)]
    return gains[0] - gains[1]


def _mrr(items: npt.NDArray[np.uint64], target: npt.NDArray[np.uint64], there: npt.NDArray[np.bool_]) -> float:
    hit = (items == target[:, None]) & there[:, None]
    return float(np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1), 0.0).mean())
