"""Nightly training on the scoring side: embedding, fitted mixture, and trees where they are better."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from batch.training.embedding import embed
from batch.training.mixture_fit import Fit, fit_mixture
from batch.training.mixture_table import MixtureTable, mixture_table
from batch.training.ranker import Booster, forest_of, ranked_items, train_ranker
from batch.training.simulated_shop import SimulatedState, pairs_of, sessions_by_end
from flows.fold.settings import LaneSettings
from schemas.events import FIRST_NEGATIVE_KIND, Columns
from serving.scoring.parameters import DEFAULT, MixtureParams
from serving.scoring.tree_ensemble import NO_FOREST, Forest

SLICES = ((0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0))
"""Shares of the sessions: counts of those before, predictions for those within. They end where the counts that
will be used end. The mixture is fitted to the last two, so that its numbers meet rows about as full as those they
were fitted to; trees learn from all: they can tell full rows from others, and need more examples."""
OF_MIXTURE = 2
PREDICTIONS = 7_000
TOP = 20


class Gain(NamedTuple):
    """The gain of trees on the last slice, trained on those before, with standard errors of the paired difference."""

    mrr: float
    mrr_error: float
    hr: float
    hr_error: float

    @property
    def wins(self) -> bool:
        """Whether the right items stand higher, beyond chance, and not fewer of them are in the list."""
        return self.mrr > self.mrr_error and self.hr > -self.hr_error


class Before(NamedTuple):
    """What the same training makes of everything before the newest slice, on which it can be judged."""

    params: MixtureParams
    forest: Forest


class Night(NamedTuple):
    """The fitted numbers, and trees, none where they do not win."""

    fit: Fit
    forest: Forest
    gain: Gain | None
    """None when there was too little to train on."""
    before: Before

    def figures(self) -> dict[str, Any]:
        """Return how it compares, by name, for the anchor's metrics."""
        fit, gain = self.fit, self.gain._asdict() if self.gain else {}
        found = {
            "fit_predictions": fit.predictions, "fit_kept": fit.kept, "ln_likelihood_before": fit.before,
            "ln_likelihood_after": fit.after, "trees": len(self.forest.value),
        }  # fmt: skip
        return found | {f"trees_gain_{name}": value for name, value in gain.items()}


def slices_of(
    events: Columns, settings: LaneSettings, slices: Sequence[tuple[float, float]] = SLICES
) -> list[MixtureTable]:
    """Return the mixture's parts for predictions in the newest sessions, from the counts before them."""
    session = sessions_by_end(events["user"], events["ts_ms"], settings.session_gap_ms)
    positive = (events["item"] != 0) & (events["kind"] < FIRST_NEGATIVE_KIND)
    n_sessions = int(session.max()) + 1 if len(session) else 0
    n_users, n_items = len(np.unique(events["user"])), len(np.unique(events["item"]))
    tables = []
    for low, high in slices:
        shop = SimulatedState(n_users, n_items, settings)
        shop.learn(events[session < low * n_sessions])
        within = (session >= low * n_sessions) & (session < high * n_sessions) & positive
        pairs = pairs_of(session[within], events["item"][within], PREDICTIONS)
        view = shop.view()
        if len(pairs.target) and len(view.slots):
            tables.append(mixture_table(view, embed(view.rows, view.slots), pairs))
    return tables


def fit_night(
    events: Columns, settings: LaneSettings, with_ranker: bool = True, start: MixtureParams = DEFAULT
) -> Night:
    """Fit to the events' own past, from `start`. What loses on the newest slice against what was before is not kept."""
    tables = slices_of(events, settings, SLICES if with_ranker else SLICES[-OF_MIXTURE:])
    if len(tables) < OF_MIXTURE:
        return Night(Fit(start, 0, 0.0, 0.0, False), NO_FOREST, None, Before(start, NO_FOREST))
    *_, older, newest = tables
    tried = fit_mixture([older], newest, start)
    fit = fit_mixture([older, newest], None, start) if tried.kept else tried
    judged = Fit(fit.params, fit.predictions, tried.before, tried.after, tried.kept)
    earlier = train_ranker(tried.params, tables[:-1]) if with_ranker else None
    gain = _gain(earlier, tried.params, newest) if earlier is not None else None
    if earlier is None or gain is None or not gain.wins:
        return Night(judged, NO_FOREST, gain, Before(tried.params, NO_FOREST))
    ranker = train_ranker(fit.params, tables)
    forest = NO_FOREST if ranker is None else forest_of(ranker)
    return Night(judged, forest, gain, Before(tried.params, forest_of(earlier)))


def newest_slice_ms(events: Columns, session_gap_ms: int) -> int:
    """Return when the newest event happened that is not in the newest slice of the sessions."""
    session = sessions_by_end(events["user"], events["ts_ms"], session_gap_ms)
    older = session < SLICES[-1][0] * (int(session.max()) + 1)
    return int(events["ts_ms"][older if older.any() else slice(1)].max())


def _gain(ranker: Booster, params: MixtureParams, judge: MixtureTable) -> Gain:
    target = judge.item[np.arange(len(judge.n)), np.maximum(judge.target, 0)]
    with_trees, without = (
        _reciprocal_ranks(ranked_items(one, params, judge, TOP), target, judge.target >= 0) for one in (ranker, None)
    )
    mrr, hr = with_trees - without, (with_trees > 0).astype(float) - (without > 0)
    n = np.sqrt(len(target))
    return Gain(float(mrr.mean()), float(mrr.std() / n), float(hr.mean()), float(hr.std() / n))


def _reciprocal_ranks(
    items: npt.NDArray[np.uint64], target: npt.NDArray[np.uint64], there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return 1 / rank of each prediction's target in its list, 0 where it is not in it."""
    hit = (items == target[:, None]) & there[:, None]
    return np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1), 0.0)
