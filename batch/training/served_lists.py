"""The lists that a server would show in a part of the past that was held out, by strategy of the API.

`hybrid` is the scorer's list, and behind it what the visitor's vector finds; `collaborative` is what the vector finds;
both are filled up with popular items, as a server does. The rows are those at the cut: nothing later is folded.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from batch.training.als import fold_in, largest
from batch.training.embedding import embed
from batch.training.interactions import Interactions
from batch.training.simulated_shop import SimulatedState, View, columns_of
from flows.fold.foldin import FOLD_ITEMS
from flows.fold.settings import LaneSettings
from serving.scoring.parameters import DEFAULT, MixtureParams
from serving.scoring.scorer import REPEAT_MODES, Scorer
from serving.scoring.sessions import padded_sessions
from serving.scoring.tree_ensemble import NO_FOREST, Forest

K = 20
MAX_VISITS = 2_000
"""Predictions that are made, drawn by chance where there are more."""
HISTORY = 50
"""Latest events of a visitor, as a user row holds them."""
BATCH = 16
AT_ONCE = 256
FOREVER_MS = 1 << 60

Ids = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


class Factors(NamedTuple):
    """Whitened item factors (n_items, d), zeros for items without any, and ALS's alpha."""

    whitened: Floats32
    alpha: float


class Scoring(NamedTuple):
    """What the scorer takes from an anchor; the embedding (n_items, D) by item of the data, None: of the rows."""

    params: MixtureParams = DEFAULT
    forest: Forest = NO_FOREST
    embedding: npt.NDArray[np.floating] | None = None


class HeldOut:
    """Predictions of what visitors did next within a running visit, after a cut in time, at most MAX_VISITS."""

    def __init__(self, data: Interactions, cut_ms: int, settings: LaneSettings, end_ms: int | None = None) -> None:
        """Hold out the events after `cut_ms`, up to `end_ms`."""
        self._data, self._settings = data, settings
        self.past = data.ts_ms <= cut_ms
        """Which events are before the cut."""
        order = np.lexsort((data.ts_ms, data.user))
        user, ts_ms = data.user[order], data.ts_ms[order]
        goes_on = np.zeros(len(order), bool)
        goes_on[1:] = (user[1:] == user[:-1]) & (np.diff(ts_ms) <= settings.session_gap_ms)
        known = np.zeros(len(data.item_hash), bool)
        known[data.item[self.past]] = True
        later = (ts_ms > cut_ms) & (ts_ms <= (ts_ms.max() if end_ms is None else end_ms))
        places = np.flatnonzero(goes_on & known[data.item[order]] & later)
        self._at = np.sort(np.random.default_rng(1).permutation(places)[:MAX_VISITS])
        first = np.searchsorted(user, user[self._at])
        self._before = [order[max(a, b - HISTORY) : b] for a, b in zip(first.tolist(), self._at.tolist(), strict=True)]
        self.target: Ids = data.item_hash[data.item[order[self._at]]]

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def _view(self) -> View:
        data, past = self._data, np.flatnonzero(self.past)
        past = past[np.argsort(data.ts_ms[past], kind="stable")]
        shop = SimulatedState(len(data.user_hash), len(data.item_hash), self._settings)
        shop.learn(columns_of(data.user_hash[data.user[past]], data.item_hash[data.item[past]], data.ts_ms[past]))
        return shop.view()

    @cached_property
    def _popular(self) -> Ints:
        counts = np.bincount(self._data.item[self.past], minlength=len(self._data.item_hash))
        return np.argsort(-counts, kind="stable")[: min(3 * K, np.count_nonzero(counts))]

    def popular(self) -> Ids:
        """Return the most popular items for every prediction, (P, K), 0 where there is none."""
        return self._filled(np.full((len(self), 1), -1, np.int64))

    def scored(self, scoring: Scoring) -> Ints:
        """Return the scorer's items for each prediction, (P, K), as places in the data's items, −1 behind them."""
        view, data = self._view, self._data
        embedding = embed(view.rows, view.slots) if scoring.embedding is None else np.zeros(
            (len(view.rows), scoring.embedding.shape[1]), np.float32
        )  # fmt: skip
        if scoring.embedding is not None:
            slots = view.slots.find(data.item_hash)
            embedding[slots[slots >= 0]] = scoring.embedding[slots >= 0]
        scorer = Scorer(scoring.params, forest=scoring.forest, max_age_ms=FOREVER_MS)
        found = np.full((len(self), K), -1, np.int64)
        for first in range(0, len(self), BATCH):
            part = self._before[first : first + BATCH]
            sessions = padded_sessions([data.item_hash[data.item[events]] for events in part])
            mode = REPEAT_MODES["allow"]
            scored = scorer.score(sessions, view.rows, view.slots, view.totals, view.now_ms, mode, embedding)
            for b, n in enumerate(np.minimum(scored.n, K).tolist()):
                found[first + b, :n] = np.searchsorted(data.item_hash, scored.item[b, :n])
        return found

    def near(self, factors: Factors) -> Ints:
        """Return the items nearest to each visitor's vector, (P, 2 · K), as places in the data's items, −1 behind."""
        found = np.full((len(self), 2 * K), -1, np.int64)
        there = np.asarray(factors.whitened.any(axis=1))
        with threadpool_limits(1, "blas"):  # the systems are too small to share
            vectors = np.array([self._vector(events, factors) for events in self._before], np.float32)
        for first in range(0, len(self), AT_ONCE):
            scores = np.where(there, vectors[first : first + AT_ONCE] @ factors.whitened.T, -np.inf)
            for b, row in enumerate(scores):
                best = largest(row, 2 * K)
                best = best[there[best]]
                found[first + b, : len(best)] = best
        return found

    def _vector(self, events: Ints, factors: Factors) -> npt.NDArray[np.float64]:
        """Return a visitor's vector from the FOLD_ITEMS latest distinct items of some events."""
        items, weights = self._data.item[events][::-1], self._data.weight[events][::-1].astype(np.float64)
        distinct, latest, which = np.unique(items, return_index=True, return_inverse=True)
        chosen = np.argsort(latest)[:FOLD_ITEMS]
        return fold_in(factors.whitened[distinct[chosen]], 1 + factors.alpha * np.bincount(which, weights)[chosen])

    def hybrid(self, scored: Ints, near: Ints) -> Ids:
        """Return the lists of `hybrid`, (P, K) item ids."""
        return self._filled(np.concatenate((scored, near), axis=1))

    def collaborative(self, near: Ints) -> Ids:
        """Return the lists of `collaborative`, (P, K) item ids."""
        return self._filled(near)

    def _filled(self, lists: Ints) -> Ids:
        """Return the first K distinct items of each list, and popular ones behind them."""
        found = np.zeros((len(lists), K), np.uint64)
        popular = self._popular.tolist()
        for i, row in enumerate(lists.tolist()):
            chosen = [place for place in dict.fromkeys([*row, *popular]) if place >= 0][:K]
            found[i, : len(chosen)] = self._data.item_hash[chosen]
        return found
