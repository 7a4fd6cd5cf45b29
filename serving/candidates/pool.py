"""Candidates of one answer, in the order of their sources: nothing twice, nothing that may not be shown."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from serving.catalogue.catalogue import Catalogue
from serving.rendering.items import RenderedReason
from serving.rules.item_filter import Selection

RANK_DECAY = 0.98
"""Worth of a candidate relative to the one before it, where scores of a source are no probabilities."""
LEAST_WORTH = 1e-300
FIRST_CAPACITY = 512
DRAWS = 8
"""Rows drawn at random for each that is wanted."""

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NO_WORTH = np.zeros(0)


class Candidates(NamedTuple):
    """Candidates as columns."""

    row: Ints
    score: Floats
    worth: Floats  # comparable between sources
    tier: Ints
    place: Ints  # among what the tier's source brought


def _room_for(n: int) -> Candidates:
    ints, floats = np.zeros((3, n), np.int64), np.zeros((2, n))
    return Candidates(ints[0], floats[0], floats[1], ints[1], ints[2])


@njit_no_refcount()
def _take(
    rows: Ints, scores: Floats, worth: Floats, mask: npt.NDArray[np.bool_], met_in: Ints, answer: int, tier: int,
    least: float, out: Candidates, n: int,
) -> tuple[int, float]:  # fmt: skip
    """Return (how many candidates there are now, the least worth of those that came)."""
    came, worst = 0, least
    for k in range(len(rows)):
        row = rows[k]
        if row < 0 or met_in[row] == answer or not mask[row]:
            continue
        met_in[row] = answer
        came += 1
        value = worth[k] if len(worth) else least * RANK_DECAY**came
        worst = value if came == 1 else min(worst, value)
        out.row[n], out.score[n], out.worth[n], out.tier[n], out.place[n] = row, scores[k], value, tier, k
        n += 1
    return n, worst


@njit_no_refcount()
def mark_seen(rows: Ints, met_in: Ints, answer: int) -> None:
    for row in rows:
        if row >= 0:
            met_in[row] = answer


class Scratch:
    """Room for the candidates of one answer after the other, and which rows an answer has met: nothing is cleared."""

    def __init__(self) -> None:
        self.met_in = np.zeros(0, np.int64)
        self.answer = 0
        self.candidates = _room_for(FIRST_CAPACITY)

    def begin(self, n_rows: int, n_answers: int = 1) -> int:
        """Begin answers over so many catalogue rows; return the number of the first one."""
        if len(self.met_in) < n_rows:
            self.met_in = np.zeros(2 * n_rows, np.int64)
        self.answer += n_answers
        return self.answer - n_answers + 1

    def room(self, used: int, more: int) -> Candidates:
        """Return the columns with room for `more` behind the `used` ones."""
        if used + more > len(self.candidates.row):
            grown = _room_for(2 * (used + more))
            for old, new in zip(self.candidates, grown, strict=True):
                new[:used] = old[:used]
            self.candidates = grown
        return self.candidates


class Priority(NamedTuple):
    """What one source brought, and what is to be said of those that are shown, by their places in it."""

    level: str
    """How far down the fallback ladder it is."""
    said: Callable[[list[int]], list[RenderedReason]]


def uniform(level: str, said: Callable[[int], RenderedReason]) -> Priority:
    """Return a tier of which something is said one by one."""
    return Priority(level, lambda places: [said(place) for place in places])


class Pool:
    """The candidates of one answer. The next pool on the same scratch ends this one."""

    def __init__(self, catalogue: Catalogue, selection: Selection, scratch: Scratch) -> None:
        self._catalogue, self.selection, self._scratch = catalogue, selection, scratch
        scratch.begin(len(catalogue))
        self.tiers: list[Priority] = []
        self._least = 1.0
        self.n = 0

    def leave_out(self, hashes: Hashes) -> None:
        """Let none of these items in."""
        mark_seen(self._catalogue.rows_of(hashes), self._scratch.met_in, self._scratch.answer)

    def add(
        self, hashes: Hashes, scores: Floats, tier: Priority, worth: Floats = NO_WORTH, rows: Ints | None = None
    ) -> None:
        """Add a source's distinct items, best first; `worth` where it is comparable, else it follows from the rank."""
        rows = self._catalogue.rows_of(hashes) if rows is None else rows
        scratch, before = self._scratch, self.n
        self.n, self._least = _take(
            rows, scores, worth, self.selection.mask, scratch.met_in, scratch.answer, len(self.tiers), self._least,
            scratch.room(self.n, len(rows)), self.n,
        )  # fmt: skip
        self._least = max(self._least, LEAST_WORTH)
        if self.n > before:
            self.tiers.append(tier)

    def allows(self, row: int) -> bool:
        """Say whether an item may be shown that no source brought."""
        return bool(self.selection.mask[row]) and bool(self._scratch.met_in[row] != self._scratch.answer)

    def unseen_sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return `n` rows at random, or all, of those that may be shown and that no source brought."""
        mask, met_in, answer = self.selection.mask, self._scratch.met_in, self._scratch.answer
        if len(mask):
            # Of most shops nearly all may be shown: to look at all of them would take longer the larger the shop is.
            drawn: Ints = rng.integers(len(mask), size=DRAWS * n)
            drawn = drawn[mask[drawn] & (met_in[drawn] != answer)]
            first = np.sort(np.unique(drawn, return_index=True)[1])
            if len(first) >= n:
                drawn = drawn[first[:n]]
                return drawn
        rows = np.flatnonzero(mask)
        rows = rows[met_in[rows] != answer]
        chosen: Ints = rng.choice(rows, min(n, len(rows)), replace=False)
        return chosen

    def candidates(self) -> Candidates:
        """Return the candidates in the order they came; good until the next pool begins."""
        row, score, worth, tier, place = self._scratch.candidates
        n = self.n
        return Candidates(row[:n], score[:n], worth[:n], tier[:n], place[:n])
