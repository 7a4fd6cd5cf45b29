"""How often visitors come back to an item already seen: trials and hits, in total and per item."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import CURRENT, EARLIER, REPEAT
from state.rows.row_codec import counted
from state.rows.session import MAX_DISTINCT, repeat_cells

ITEM_RANKS = 4
"""Per-item counters look at the current item and the next three; the global tables at all distinct items."""

_cells = stack_array(np.int64, MAX_DISTINCT)


@njit_no_refcount()
def count_repeats(
    rows: ItemRows,
    totals: npt.NDArray[np.int64],
    item: np.uint64,
    place: npt.NDArray[np.int8],
    n_session: int,
    distinct: npt.NDArray[np.uint64],
    distinct_slots: npt.NDArray[np.int64],
    n_distinct: int,
    sign: int,
) -> None:
    """Count one trial for every distinct item of the session, and a hit for the one that came again.

    `totals` is the lane's globals vector (`state.rows.lane_rows`); `distinct`, `place` and `n_distinct` are what
    `state.rows.session.distinct_latest_first` found in the events before this one, at least one.
    """
    cells = _cells()
    repeat_cells(place, n_session, n_distinct, cells)
    for r in range(min(n_distinct, MAX_DISTINCT)):
        hit = sign if distinct[r] == item else 0
        table = CURRENT if r == 0 else EARLIER
        totals[table + 2 * cells[r]] += hit
        totals[table + 2 * cells[r] + 1] += sign
        if r < ITEM_RANKS:
            column = 0 if r == 0 else 2
            repeat = rows[distinct_slots[r]].repeat
            repeat[column] = counted(repeat[column], hit)
            repeat[column + 1] = counted(repeat[column + 1], sign)
            totals[REPEAT + column] += hit
            totals[REPEAT + column + 1] += sign
