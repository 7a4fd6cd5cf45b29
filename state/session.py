"""What a running session looks like to the learner and to the scorer alike.

Both sides read the last SESSION_EVENTS events of a session, so a counter is a sum
over events of a function of the event and of the session before it.
"""

import numba
import numpy as np
import numpy.typing as npt

SESSION_EVENTS = 30
MAX_DISTINCT = 20


@numba.njit(cache=True)
def distinct_latest_first(items: npt.NDArray[np.uint64], n: int, out: npt.NDArray[np.uint64]) -> int:
    """Write the distinct items of `items[:n]`, last occurrence first, into `out`; return how many (<= MAX_DISTINCT).

    >>> out = np.zeros(20, np.uint64)
    >>> n = distinct_latest_first(np.array([1, 2, 1, 3], np.uint64), 4, out)
    >>> out[:n].tolist()
    [3, 1, 2]
    """
    m = 0
    for k in range(n - 1, -1, -1):
        item = items[k]
        known = False
        for j in range(m):
            if out[j] == item:
                known = True
                break
        if not known:
            out[m] = item
            m += 1
            if m == MAX_DISTINCT:
                break
    return m


@numba.njit(cache=True)
def repeat_cells(
    items: npt.NDArray[np.uint64],
    n: int,
    distinct: npt.NDArray[np.uint64],
    m: int,
    cells: npt.NDArray[np.int64],
) -> None:
    """Write the repeat-table cell of each distinct item into `cells[:m]`.

    `cells[0]` indexes the table of the current item (72 cells: run length, completed
    runs, share of longer runs), `cells[r]`, r >= 1, the table of earlier items (144
    cells: recency rank, runs of the item, revisit runs, whether it followed the
    current item before). Definitions: docs/model.md.
    """
    run_item = np.empty(SESSION_EVENTS, np.uint64)
    run_length = np.empty(SESSION_EVENTS, np.int64)
    n_runs = 0
    for k in range(n):
        if n_runs > 0 and run_item[n_runs - 1] == items[k]:
            run_length[n_runs - 1] += 1
        else:
            run_item[n_runs] = items[k]
            run_length[n_runs] = 1
            n_runs += 1
    completed = n_runs - 1
    length = min(run_length[n_runs - 1], 3)
    n_longer = 0
    revisits = 0
    for i in range(n_runs):
        if i < completed and run_length[i] > length:
            n_longer += 1
        for j in range(i):
            if run_item[j] == run_item[i]:
                revisits += 1
                break
    if n_longer == 0:
        longer = 0
    elif n_longer == completed:
        longer = 3
    elif 2 * n_longer < completed:
        longer = 1
    else:
        longer = 2
    cells[0] = ((length - 1) * 6 + min(completed, 5)) * 4 + longer
    current = run_item[n_runs - 1]
    for r in range(1, m):
        runs = 0
        followed = 0
        for i in range(n_runs):
            if run_item[i] == distinct[r]:
                runs += 1
                if i > 0 and run_item[i - 1] == current:
                    followed = 1
        cells[r] = (((min(r, 8) - 1) * 3 + min(runs, 3) - 1) * 3 + min(revisits, 2)) * 2 + followed
