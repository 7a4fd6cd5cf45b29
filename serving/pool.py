"""Candidates of one answer, in the order of their sources: nothing twice, nothing that may not be shown."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.reasons import Reason
from serving.selection import Selection

RANK_DECAY = 0.98
"""Worth of a candidate relative to the one before it, where scores of a source are no probabilities."""

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Marks:
    """Which catalogue rows an answer has met, without clearing anything between answers."""

    def __init__(self) -> None:
        self._met_in = np.zeros(0, np.int64)
        self._answer = 0

    def begin(self, n_rows: int) -> None:
        if len(self._met_in) < n_rows:
            self._met_in = np.zeros(2 * n_rows, np.int64)
        self._answer += 1

    def new(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the known rows were not met yet."""
        new: npt.NDArray[np.bool_] = self._met_in[rows] != self._answer
        return new

    def meet(self, rows: npt.NDArray[np.int64]) -> None:
        self._met_in[rows] = self._answer


class Tier(NamedTuple):
    """What one source brought: its name by candidate, and why each is there, asked for those that are shown."""

    level: str
    """How far down the fallback ladder it is."""
    source: Callable[[int], str]
    reason: Callable[[int], Reason]


class Pool:
    """Candidates as parallel arrays: catalogue row, score, worth, tier and place within the tier."""

    def __init__(self, catalogue: Catalogue, selection: Selection, marks: Marks, excluded: Hashes) -> None:
        self._catalogue, self.selection, self._marks = catalogue, selection, marks
        marks.begin(len(catalogue))
        if len(excluded):
            rows = catalogue.rows_of(excluded)
            marks.meet(rows[rows >= 0])
        self.tiers: list[Tier] = []
        self._parts: list[tuple[npt.NDArray[np.int64], Floats, Floats, npt.NDArray[np.int64]]] = []
        self._least = 1.0
        self.n = 0

    def add(
        self, hashes: Hashes, scores: Floats, tier: Tier, worth: Floats | None = None,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        """Add a source's distinct items, best first; `worth` where it is comparable, else it follows from the rank."""
        rows = self._catalogue.rows_of(hashes) if rows is None else rows
        keep = np.flatnonzero(rows >= 0)
        keep = keep[self.selection.mask[rows[keep]] & self._marks.new(rows[keep])]
        if not len(keep):
            return
        taken = rows[keep]
        self._marks.meet(taken)
        value: Floats = np.power(RANK_DECAY, np.arange(1, len(keep) + 1.0)) * self._least
        if worth is not None:
            value = worth[keep]
        self._least = max(float(value.min()), 1e-300)
        self._parts.append((taken, scores[keep], value, np.stack((np.full(len(keep), len(self.tiers)), keep))))
        self.tiers.append(tier)
        self.n += len(keep)

    def allows(self, row: int) -> bool:
        """Say whether an item may be shown that no source brought."""
        return bool(self.selection.mask[row]) and bool(self._marks.new(np.array([row]))[0])

    def unmet(self) -> npt.NDArray[np.int64]:
        """Return the rows that may be shown and that no source brought."""
        rows = np.flatnonzero(self.selection.mask)
        return rows[self._marks.new(rows)]

    def arrays(self) -> tuple[npt.NDArray[np.int64], Floats, Floats, npt.NDArray[np.int64]]:
        """Return (rows, scores, worth, (tier, place) as (2, n)) of all candidates, in the order they came."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros((2, 0), np.int64)
        if len(self._parts) == 1:
            return self._parts[0]
        rows, scores, worth, origin = zip(*self._parts, strict=True)
        return np.concatenate(rows), np.concatenate(scores), np.concatenate(worth), np.concatenate(origin, axis=1)
