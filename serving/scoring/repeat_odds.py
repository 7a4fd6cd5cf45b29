"""Shrunk repeat probabilities from the lane's tables (docs/model.md, section Repeats)."""

import math

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from state.rows.lane_rows import CURRENT, EARLIER, N_CURRENT_CELLS, N_EARLIER_CELLS, REPEAT

CURRENT_SLICE = N_CURRENT_CELLS // 3  # cells of one run length
EARLIER_SLICE = N_EARLIER_CELLS // 8  # cells of one recency rank
CELL_PRIOR, CURRENT_PRIOR, EARLIER_PRIOR = 30.0, 20.0, 50.0
ITEM_PRIOR_CURRENT, ITEM_PRIOR_EARLIER = 6.0, 30.0

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@njit_no_refcount()
def _ln_table(totals: Int64s, at: int, n_cells: int, size: int, prior: float, out: Floats) -> None:
    hits = trials = 0
    for cell in range(n_cells):
        hits += totals[at + 2 * cell]
        trials += totals[at + 2 * cell + 1]
    overall = (hits + 0.5) / (trials + 5.0)
    for first in range(0, n_cells, size):
        slice_hits = slice_trials = 0
        for cell in range(first, first + size):
            slice_hits += totals[at + 2 * cell]
            slice_trials += totals[at + 2 * cell + 1]
        mean = (slice_hits + prior * overall) / (slice_trials + prior)
        for cell in range(first, first + size):
            hit, trial = totals[at + 2 * cell], totals[at + 2 * cell + 1]
            out[cell] = math.log((hit + CELL_PRIOR * mean) / (trial + CELL_PRIOR))


@njit_no_refcount()
def ln_repeat_tables(totals: Int64s, current: Floats, earlier: Floats) -> None:
    """Write ln of every cell's shrunk repeat probability into `current` (72) and `earlier` (144)."""
    _ln_table(totals, CURRENT, N_CURRENT_CELLS, CURRENT_SLICE, CURRENT_PRIOR, current)
    _ln_table(totals, EARLIER, N_EARLIER_CELLS, EARLIER_SLICE, EARLIER_PRIOR, earlier)


@njit_no_refcount()
def ln_item_factor(repeat: Int64s, totals: Int64s, is_current: bool) -> float:
    """Return ln of how much more often than usual this item (its q0, n0, q1, n1) is repeated."""
    at = 0 if is_current else 2
    prior = ITEM_PRIOR_CURRENT if is_current else ITEM_PRIOR_EARLIER
    usual = (totals[REPEAT + at] + 0.5) / (totals[REPEAT + at + 1] + 5.0)
    return math.log((repeat[at] + prior * usual) / (repeat[at + 1] + prior) / usual)
