"""The kernel that fills the places of a list under caps: at most so many of one group among the first places."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit

EMPTY, FIXED = -1, -2
"""Instead of a candidate: the place stays empty; the place was given away before."""

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@njit()
def fill_places(
    order: Rows, codes: Codes, limits: Rows, offset: int, fixed_codes: Codes, is_fixed: Flags, places: Rows,
    held_back: Flags,
) -> None:  # fmt: skip
    """Write the candidate of each place into `places`, and who was held back; `limits` (n_caps, 2): most, first."""
    n_caps, n_places = len(limits), len(places)
    most, first = limits[:, 0], limits[:, 1]
    places[:] = EMPTY
    counted = np.zeros((n_caps, n_places + len(is_fixed)), np.int32)  # codes that count among the first, 0 for none
    n_counted = np.zeros(n_caps, np.int64)
    for position in range(len(is_fixed)):  # what is fixed counts before anything else is placed
        for c in range(n_caps):
            if is_fixed[position] and position < first[c] and fixed_codes[c, position] != 0:
                counted[c, n_counted[c]] = fixed_codes[c, position]
                n_counted[c] += 1
    used, ended = np.zeros(len(order), np.bool_), False
    for k in range(n_places):
        position = offset + k
        if is_fixed[position]:
            places[k] = FIXED
        if is_fixed[position] or ended:
            continue
        for at in range(len(order)):
            if used[at]:
                continue
            fits = True
            for c in range(n_caps):
                code = codes[c, order[at]]
                if position < first[c] and code != 0:
                    same = 0
                    for j in range(n_counted[c]):
                        same += counted[c, j] == code
                    if same >= most[c]:
                        held_back[c, order[at]] = True
                        fits = False
                        break
            if fits:
                used[at] = True
                places[k] = order[at]
                for c in range(n_caps):
                    code = codes[c, order[at]]
                    if position < first[c] and code != 0:
                        counted[c, n_counted[c]] = code
                        n_counted[c] += 1
                break
        ended = places[k] == EMPTY  # what comes behind would move up to where it must not be
