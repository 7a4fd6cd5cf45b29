"""The running session, as the fold and the scorer both read it.

Both sides read the last SESSION_EVENTS events of a session, so a counter is a sum
over events of a function of the event and of the session before it.
"""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array

SESSION_EVENTS = 30
MAX_DISTINCT = 20
TABLE = 64
"""Places of the small hash table that finds an item among a session's distinct ones; over twice SESSION_EVENTS."""

_table, _counts = stack_array(np.int8, TABLE), stack_array(np.int64, SESSION_EVENTS)


@njit_no_refcount()
def distinct_latest_first(
    items: npt.NDArray[np.uint64], n: int, out: npt.NDArray[np.uint64], place: npt.NDArray[np.int8]
) -> int:
    """Write the distinct items of `items[:n]`, last occurrence first, into `out`; return how many.

    `place[k]` becomes the index in `out` of event k's item. `n` is at most SESSION_EVENTS, the size of `out` and
    `place`.

    >>> out, place = np.zeros(SESSION_EVENTS, np.uint64), np.zeros(SESSION_EVENTS, np.int8)
    >>> n = distinct_latest_first(np.array([1, 2, 1, 3], np.uint64), 4, out, place)
    >>> out[:n].tolist(), place[:4].tolist()
    ([3, 1, 2], [1, 2, 1, 0])
    """
    table = _table()  # the index in `out`, plus one
    table[:] = 0
    m = 0
    for k in range(n - 1, -1, -1):
        item = items[k]
        at = item % np.uint64(TABLE)
        while table[at] != 0 and out[table[at] - 1] != item:
            at = (at + np.uint64(1)) % np.uint64(TABLE)
        if table[at] == 0:
            out[m] = item
            m += 1
            table[at] = m
        place[k] = table[at] - 1
    return m


@njit_no_refcount()
def repeat_cells(place: npt.NDArray[np.int8], n: int, n_distinct: int, cells: npt.NDArray[np.int64]) -> None:
    """Write the repeat-table cell of each of the MAX_DISTINCT latest distinct items into `cells`.

    `place` and `n_distinct` are what `distinct_latest_first` found in n >= 1 events. `cells[0]` indexes the table
    of the current item (72 cells: run length, completed runs, share of longer runs), `cells[r]`, r >= 1, the table of
    earlier items (144 cells: recency rank, runs of the item, revisit runs, whether it followed the current item
    before). Definitions: docs/model.md.
    """
    runs, followed = _counts(), _counts()
    runs[:], followed[:] = 0, 0
    length = min(_run_ending_at(place, n - 1), 3)
    n_runs = n_longer = run = 0
    for k in range(n):
        run += 1
        if k + 1 < n and place[k + 1] == place[k]:
            continue
        runs[place[k]] += 1
        n_runs += 1
        if k + 1 < n:
            n_longer += run > length
            if place[k] == 0:  # the current item is the latest distinct one
                followed[place[k + 1]] = 1
        run = 0
    completed, revisits = n_runs - 1, n_runs - n_distinct
    if n_longer == 0:
        longer = 0
    elif n_longer == completed:
        longer = 3
    elif 2 * n_longer < completed:
        longer = 1
    else:
        longer = 2
    cells[0] = ((length - 1) * 6 + min(completed, 5)) * 4 + longer
    for r in range(1, min(n_distinct, MAX_DISTINCT)):
        cells[r] = (((min(r, 8) - 1) * 3 + min(runs[r], 3) - 1) * 3 + min(revisits, 2)) * 2 + followed[r]


@njit_no_refcount()
def _run_ending_at(place: npt.NDArray[np.int8], last: int) -> int:
    """Return how many events in a row up to `last` were of one item."""
    first = last
    while first > 0 and place[first - 1] == place[last]:
        first -= 1
    return last - first + 1
