"""Memory that the candidates of one answer after the other use, so that none is allocated for each."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount

RANK_DECAY = 0.98
"""Score of a source's first candidate relative to the last one of the source before it."""
LEAST_SCORE = 1e-200
"""Of a candidate without rules: times any boost it is still a positive number."""
FIRST_CAPACITY = 512

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Candidates(NamedTuple):
    """Candidates as columns."""

    row: Ints
    score: Floats  # on one scale, falling
    tier: Ints
    place: Ints  # among what the tier's source brought


def _room_for(n: int) -> Candidates:
    ints = np.zeros((3, n), np.int64)
    return Candidates(ints[0], np.zeros(n), ints[1], ints[2])


class Scratch:
    """Memory for the candidates of one answer after the other, and the rows each has seen; nothing is cleared."""

    def __init__(self) -> None:
        self.met_in = np.zeros(0, np.int64)
        self.answer = 0
        self.candidates = _room_for(FIRST_CAPACITY)

    def begin(self, n_rows: int, n_answers: int = 1) -> int:
        """Begin answers over `n_rows` catalogue rows; return the number of the first one."""
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


@njit_no_refcount()
def take(
    rows: Ints, scores: Floats, mask: npt.NDArray[np.bool_], met_in: Ints, answer: int, tier: int, least: float,
    out: Candidates, n: int,
) -> tuple[int, float]:  # fmt: skip
    """Return (how many candidates there are now, the score of the last one).

    `scores`: of one source, falling, 0 < score <= 1. The first source's are kept. Those of a later one are multiplied
    so that its first is RANK_DECAY times `least`, the score of the last candidate so far.
    """
    came, scale, last = 0, 1.0, least
    for k in range(len(rows)):
        row = rows[k]
        if row < 0 or met_in[row] == answer or not mask[row]:
            continue
        met_in[row] = answer
        came += 1
        if came == 1 and n > 0:
            scale = least * RANK_DECAY / scores[k]
        score = max(scores[k] * scale, LEAST_SCORE)
        last = score if n == 0 else min(score, last)
        out.row[n], out.score[n], out.tier[n], out.place[n] = row, last, tier, k
        n += 1
    return n, last


@njit_no_refcount()
def mark_seen(rows: Ints, met_in: Ints, answer: int) -> None:
    """Mark catalogue rows (-1: none) as seen by an answer."""
    for row in rows:
        if row >= 0:
            met_in[row] = answer
