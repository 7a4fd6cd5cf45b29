"""Baselines: popularity, own purchases, item pairs, sequential rules, session kNN, ALS.

Slow and plain on purpose: dictionaries over the training sessions.
AR and SR as in Ludewig, Jannach, "Evaluation of session-based recommendation algorithms" (UMUAI
2018); V-SKNN's recency weights from the same paper.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from batch.training.als import fit, whiten

Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
STEPS = 20
NEIGHBOURS, RECENT = 500, 2_500
FACTORS, REGULARIZATION, ALPHA, ITERATIONS = 64, 0.05, 2.0, 15


class Baselines:
    """All baselines of one training part. `sessions`: item lists in time order, oldest session first."""

    def __init__(self, sessions: Sequence[Ids]) -> None:
        self.popularity: Counter[int] = Counter()
        self._pairs: dict[int, Counter[int]] = defaultdict(Counter)
        self._rules: dict[int, Counter[int]] = defaultdict(Counter)
        self._items_of = list(sessions)
        self._sessions = [set(session.tolist()) for session in sessions]
        self._of_item: dict[int, list[int]] = defaultdict(list)
        for number, session in enumerate(sessions):
            items = session.tolist()
            self.popularity.update(items)
            for item in dict.fromkeys(items):
                self._of_item[item].append(number)
            for k, item in enumerate(items):  # an item that comes again is a pair with itself
                for step in range(1, min(STEPS, k) + 1):
                    self._rules[items[k - step]][item] += 1.0 / step  # type: ignore[assignment]
                    self._pairs[items[k - step]][item] += 1
                    self._pairs[item][items[k - step]] += 1

    def rank(self, name: str, history: Ids, k: int) -> list[int]:
        """Return the k best items of a baseline; popular ones fill up."""
        if name == "als":
            return self._factors.rank(history, k)
        scores = getattr(self, "_" + name)(history.tolist())
        best = heapq.nsmallest(k, scores.items(), key=lambda pair: (-pair[1], pair[0]))
        found = [item for item, _ in best]
        if len(found) < k:
            found += [item for item, _ in self._top(3 * k) if item not in scores][: k - len(found)]
        return found

    def _top(self, k: int) -> list[tuple[int, int]]:
        if not hasattr(self, "_most"):
            self._most = sorted(self.popularity.items(), key=lambda pair: (-pair[1], pair[0]))[:1000]
        return self._most[:k]

    def _popular(self, history: list[int]) -> dict[int, float]:
        return dict(self._top(100))  # type: ignore[arg-type]

    def _most_had(self, history: list[int]) -> dict[int, float]:
        """The visitor's own items, the most frequent first, of equal ones the latest."""
        latest = {item: place for place, item in enumerate(history)}
        return {item: n + latest[item] / len(history) for item, n in Counter(history).items()}

    @cached_property
    def _factors(self) -> "Factors":
        return Factors(self._items_of)

    def _cooccurrence(self, history: list[int]) -> dict[int, float]:
        return self._pairs.get(history[-1], {}) if history else {}  # type: ignore[return-value]

    def _sequential_rules(self, history: list[int]) -> dict[int, float]:
        return self._rules.get(history[-1], {}) if history else {}  # type: ignore[return-value]

    def _session_knn(self, history: list[int]) -> dict[int, float]:
        """V-SKNN: the latest item counts fully, the first one least."""
        weights = {item: (place + 1) / len(history) for place, item in enumerate(history)}
        similar: dict[int, float] = defaultdict(float)
        for item, weight in weights.items():
            for number in self._of_item.get(item, [])[-RECENT:]:
                similar[number] += weight
        near = heapq.nlargest(NEIGHBOURS, similar.items(), key=lambda pair: (pair[1], pair[0]))
        scores: dict[int, float] = defaultdict(float)
        for number, weight in near:
            for item in self._sessions[number]:
                scores[item] += weight / np.sqrt(len(self._sessions[number]))
        return scores


class Factors:
    """ALS alone: a history is folded in as one more session (Hu, Koren, Volinsky, ICDM 2008)."""

    def __init__(self, sessions: Sequence[Ids]) -> None:
        self.items = np.unique(np.concatenate(sessions))
        rows = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
        columns = np.searchsorted(self.items, np.concatenate(sessions))
        weight = np.ones(len(rows), np.float32)
        matrix = csr_matrix((weight, (rows, columns)), (len(sessions), len(self.items)))
        factors = min(FACTORS, *matrix.shape)
        self._whitened, _ = whiten(fit(matrix, factors, REGULARIZATION, ALPHA, ITERATIONS, 0), REGULARIZATION)

    def rank(self, history: Ids, k: int) -> list[int]:
        """Return the k items with the largest inner products; equal ones by id."""
        known, n = np.unique(history[np.isin(history, self.items)], return_counts=True)
        w = self._whitened[np.searchsorted(self.items, known)].astype(np.float64)
        gain = ALPHA * n
        x = np.linalg.solve(np.eye(w.shape[1]) + (w.T * gain) @ w, w.T @ (1 + gain))
        scores = self._whitened @ x.astype(np.float32)
        best = np.argpartition(-scores, min(k, len(scores) - 1))[:k]
        return [int(self.items[i]) for i in best[np.lexsort((self.items[best], -scores[best]))]]


NAMES = ("popular", "most_had", "cooccurrence", "sequential_rules", "session_knn", "als")
