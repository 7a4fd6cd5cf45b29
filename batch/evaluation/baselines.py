"""Baselines: popularity, own purchases, item pairs, sequential rules, session kNN, ALS.

AR and SR as in Ludewig, Jannach, "Evaluation of session-based recommendation algorithms" (UMUAI 2018); V-SKNN's recency
weights from the same paper. Counts are sparse matrices of items by items; lists of all predictions are made together.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from batch.training.als import fit, fold_in, largest, whiten

Ids = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
STEPS = 20
NEIGHBOURS, RECENT = 500, 2_500
FACTORS, REGULARIZATION, ALPHA, ITERATIONS = 64, 0.05, 2.0, 15
AT_ONCE = 256
"""Histories whose scores of all items are in memory."""
FILL = 1_000
"""Popular items that fill up lists."""


class Baselines:
    """All baselines of one training part. `sessions`: item lists in time order, oldest session first."""

    def __init__(self, sessions: Sequence[Ids]) -> None:
        self._sessions = list(sessions)
        self._lengths = np.array([len(one) for one in sessions], np.int64)
        flat = np.concatenate([np.zeros(0, np.uint64), *sessions])
        self.items, self._item = np.unique(flat, return_inverse=True)
        """The items' ids ascend, so that of equal scores the smaller place is the smaller id."""
        self._session = np.repeat(np.arange(len(self._lengths)), self._lengths)
        self._counts = np.bincount(self._item, minlength=len(self.items))
        self._popular_first = np.argsort(-self._counts, kind="stable")[:FILL]

    def rank(self, name: str, history: Ids, k: int) -> list[int]:
        """Return the k best items of a baseline; popular ones fill up."""
        return [item for item in self.rank_all(name, [history], k)[0].tolist() if item]

    def rank_all(self, name: str, histories: Sequence[Ids], k: int, without_own: bool = False) -> Ids:
        """Return the k best items of a baseline for each history, (P, k), 0 where there is none; popular ones fill up.

        `without_own`: the items of a history are left out of its list.
        """
        found = np.zeros((len(histories), k), np.uint64)
        best = self._als if name == "als" else self._each(getattr(self, f"_{name}"))
        for first in range(0, len(histories), AT_ONCE):
            part = histories[first : first + AT_ONCE]
            more = max(len(one) for one in part) if without_own else 0
            for at, (history, items) in enumerate(zip(part, best(part, k + more), strict=True)):
                chosen = self._filled(items, self._places(history) if without_own else np.zeros(0, np.int64), k)
                found[first + at, : len(chosen)] = self.items[chosen]
        return found

    def _each(self, scores_of: Callable[[Ids], tuple[Ints, npt.NDArray[np.float64]]]) -> "Best":
        """Return what lists the best items of histories, one by one."""

        def best(histories: Sequence[Ids], k: int) -> list[Ints]:
            return [_largest(*scores_of(history), k) for history in histories]

        return best

    def _filled(self, items: Ints, hidden: Ints, k: int) -> Ints:
        """Return the first k items that are not hidden, and popular ones behind them."""
        if len(hidden):
            items = items[~np.isin(items, hidden)]
        if len(items) >= k:
            return items[:k]
        there = np.concatenate((items, hidden))
        popular = self._popular_first[: k + len(there)]
        return np.concatenate((items, popular[~np.isin(popular, there)]))[:k]

    def _places(self, history: Ids) -> Ints:
        """Return the places of a history's known items, in its order."""
        places, known = self._looked_up(history)
        return places[known]

    def _looked_up(self, history: Ids) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return (a place for each item of a history, whether it is that item's)."""
        if not len(self.items):
            return np.zeros(len(history), np.int64), np.zeros(len(history), bool)
        at: Ints = np.minimum(np.searchsorted(self.items, history), len(self.items) - 1)
        return at, self.items[at] == history

    def _latest(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64], Ints]:
        """Return (places of a history's distinct known items, how late each came last, how often): 1 for the latest."""
        own, back, n = np.unique(history[::-1], return_index=True, return_counts=True)
        places, known = self._looked_up(own)
        return places[known], 1 - back[known] / len(history), n[known]

    def _popular(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        return self._popular_first, self._counts[self._popular_first].astype(np.float64)

    def _most_had(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        """The visitor's own items, the most frequent first, of equal ones the latest."""
        own, late, n = self._latest(history)
        return own, n + late - 1

    def _cooccurrence(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        return self._row_of_last(self._pairs, history)

    def _sequential_rules(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        return self._row_of_last(self._rules, history)

    def _row_of_last(self, counts: csr_matrix, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        last = self._places(history[-1:])
        if not len(last):
            return np.zeros(0, np.int64), np.zeros(0)
        row = slice(counts.indptr[last[0]], counts.indptr[last[0] + 1])
        return counts.indices[row].astype(np.int64), counts.data[row]

    @cached_property
    def _rules(self) -> csr_matrix:
        """What came up to STEPS later in a session, by 1 / steps; an item that comes again follows itself."""
        return self._followers(lambda step: 1.0 / step)

    @cached_property
    def _pairs(self) -> csr_matrix:
        """What came up to STEPS before or later in a session."""
        later = self._followers(lambda step: 1.0)
        return (later + later.T).tocsr()

    def _followers(self, weight: Callable[[int], float]) -> csr_matrix:
        n, total = len(self.items), csr_matrix((len(self.items),) * 2)
        for step in range(1, STEPS + 1):
            same = np.flatnonzero(self._session[step:] == self._session[:-step])
            if not len(same):
                break
            pairs = (self._item[same], self._item[same + step])
            total = total + csr_matrix((np.full(len(same), weight(step)), pairs), (n, n))
        return total.tocsr()

    @cached_property
    def _members(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return (distinct items of each session, where they begin; sessions of each item, where they begin)."""
        matrix = csr_matrix((np.ones(len(self._item)), (self._session, self._item)),
                            (len(self._lengths), len(self.items)))  # fmt: skip
        matrix.sum_duplicates()
        by_item = matrix.tocsc()
        return matrix.indices, matrix.indptr, by_item.indices, by_item.indptr

    def _session_knn(self, history: Ids) -> tuple[Ints, npt.NDArray[np.float64]]:
        """V-SKNN: the latest item counts fully, the first one least."""
        items_of, first_item, sessions_of, first_session = self._members
        own, late, _ = self._latest(history)
        parts = [sessions_of[max(first_session[one], first_session[one + 1] - RECENT) : first_session[one + 1]]
                 for one in own.tolist()]  # fmt: skip
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0)
        numbers = np.concatenate(parts)
        weights = np.repeat(late, [len(part) for part in parts])
        near, where = np.unique(numbers, return_inverse=True)
        alike = np.bincount(where, weights)
        nearest = np.lexsort((near, alike))[-NEIGHBOURS:]
        near, alike = near[nearest], alike[nearest]
        n = first_item[near + 1] - first_item[near]
        entries = np.repeat(first_item[near] - np.cumsum(n) + n, n) + np.arange(n.sum())
        found, at = np.unique(items_of[entries], return_inverse=True)
        scores = np.bincount(at, np.repeat(alike / np.sqrt(n), n)).astype(np.float64)
        return found.astype(np.int64), scores

    @cached_property
    def _whitened(self) -> Floats:
        matrix = csr_matrix((np.ones(len(self._item), np.float32), (self._session, self._item)),
                            (len(self._lengths), len(self.items)))  # fmt: skip
        factors = min(FACTORS, *matrix.shape)
        return whiten(fit(matrix, factors, REGULARIZATION, ALPHA, ITERATIONS, 0), REGULARIZATION)[0]

    def _als(self, histories: Sequence[Ids], k: int) -> list[Ints]:
        """ALS alone: a history is folded in as one more session (Hu, Koren, Volinsky, ICDM 2008)."""
        vectors = np.zeros((len(histories), self._whitened.shape[1]), np.float32)
        with threadpool_limits(1, "blas"):  # the systems are too small to share
            for at, history in enumerate(histories):
                known, n = np.unique(self._places(history), return_counts=True)
                vectors[at] = fold_in(self._whitened[known], 1 + ALPHA * n)
        return [largest(row, k) for row in vectors @ self._whitened.T]


Best = Callable[[Sequence[Ids], int], list[Ints]]


def _largest(items: Ints, scores: npt.NDArray[np.floating], k: int) -> Ints:
    """Return the k items with the largest scores, equal ones by place."""
    order = np.argsort(items, kind="stable")
    return items[order[largest(scores[order], k)]]


NAMES = ("popular", "most_had", "cooccurrence", "sequential_rules", "session_knn", "als")
