"""Searches the settings of ALS for the lists that a server shows: the best HR@20 of one strategy on the shop's past.

Temporal cross-validation: factors of the first 80 and 90 % of the events are judged by what visitors did in the next
10 %. A trial that is worse than the median after the first fold ends there.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import optuna

from batch.metrics import difference, per_prediction
from batch.settings import TrainingSettings
from batch.training.comparison import DECIDES, figures_of
from batch.training.interactions import Interactions
from batch.training.measure import als_factors
from batch.training.served_lists import HeldOut, K, Scoring
from flows.settings import lane_settings

Strategy = Literal["hybrid", "collaborative"]
FOLDS = ((0.8, 0.9), (0.9, 1.0))
LEAST_PREDICTIONS = 20
SEED = 42
NAMES = ("factors", "als_regularization", "als_alpha", "als_iterations")
Ids = npt.NDArray[np.uint64]


class Search:
    """What settings are judged by: predictions of each fold, and the scorer's part of their lists."""

    def __init__(self, settings: TrainingSettings, data: Interactions, strategy: Strategy) -> None:
        """Hold out what visitors did; `len()` tells in how many folds they did enough."""
        self._settings, self._data, self._strategy = settings, data, strategy
        ends = [[int(np.quantile(data.ts_ms, share)) for share in fold] for fold in FOLDS] if len(data.ts_ms) else []
        visits = [HeldOut(data, cut_ms, lane_settings(settings), end_ms) for cut_ms, end_ms in ends]
        self._folds = [one for one in visits if len(one) >= LEAST_PREDICTIONS]
        # Default numbers stand for the fitted ones: what is behind the scorer's items does not depend on their order.
        scores = strategy == "hybrid"
        self._scored = [one.scored(Scoring()) if scores else np.zeros((len(one), 0), np.int64) for one in self._folds]
        self.target: Ids = np.concatenate([np.zeros(0, np.uint64), *(one.target for one in self._folds)])

    def __len__(self) -> int:
        return len(self._folds)

    @property
    def from_vectors(self) -> float:
        """Share of the places that the visitors' vectors fill: all that the settings can change."""
        empty = [(scored < 0).sum() + len(scored) * (K - scored.shape[1]) for scored in self._scored]
        return float(sum(empty) / max(len(self.target) * K, 1))

    def lists(self, values: Mapping[str, Any]) -> Ids:
        """Return the lists that settings give, (P, K), one fold behind the other."""
        return np.concatenate([self._lists_of(number, values) for number in range(len(self))])

    def _lists_of(self, number: int, values: Mapping[str, Any]) -> Ids:
        visits = self._folds[number]
        settings = self._settings.model_copy(update=dict(values))
        return visits.hybrid(self._scored[number], visits.near(als_factors(settings, self._data, visits)))

    def objective(self, trial: optuna.Trial) -> float:
        """Return the mean HR@20 of a trial's settings."""
        values = {
            "factors": trial.suggest_categorical("factors", [32, 64, 128]),
            "als_regularization": trial.suggest_float("als_regularization", 1e-3, 50.0, log=True),
            "als_alpha": trial.suggest_float("als_alpha", 0.1, 50.0, log=True),
            "als_iterations": trial.suggest_int("als_iterations", 5, 20, step=5),
        }
        found = []
        for number, visits in enumerate(self._folds):
            hits = per_prediction(self._lists_of(number, values), list(visits.target[:, None]), K)[DECIDES]
            found.append(float(hits.mean()))
            trial.report(float(np.mean(found)), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(found))

    def study(self, storage: str) -> optuna.Study:
        """Return the strategy's study, which begins with the present settings and is gone on with."""
        study = optuna.create_study(
            study_name=f"anchor-{self._strategy}", storage=storage, load_if_exists=True, direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=SEED), pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )  # fmt: skip
        if not study.trials:
            study.enqueue_trial({name: getattr(self._settings, name) for name in NAMES})
        return study

    def judged(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures of the best settings and of the present ones, and by how much the best are better."""
        lists = {"best": self.lists(best), "present": self.lists({})}
        found: dict[str, Any] = figures_of(lists, self.target)
        return found | {"difference": difference(lists["best"], lists["present"], list(self.target[:, None]))}
