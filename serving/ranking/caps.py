"""Filling the places of a list so that no category, brand or seller has more of the first ones than a rule allows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.catalogue.catalogue import Catalogue
from serving.ranking.fill_places import fill_places
from serving.request.columns import TextColumn
from serving.rules.model import Cap

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def limits_of(caps: Sequence[Cap]) -> Rows:
    """Return (most, first) of each cap."""
    return np.array([(cap.most, cap.first) for cap in caps], np.int64).reshape(len(caps), 2)


def fill(
    order: Rows, rows: Rows, caps: Sequence[Cap], catalogue: Catalogue, fixed: dict[int, int], offset: int, count: int
) -> tuple[Rows, Flags]:
    """Return (candidate of each of the `count` places behind `offset`, or FIXED or EMPTY; who was held back by cap).

    `order`: the candidates that wait, best first; `rows`: catalogue row of each candidate; `fixed`: catalogue row by
    position (from 1) of the places given away before. A candidate a cap holds back gives way to the next.
    """
    last = max([offset + count, *fixed])
    is_fixed, fixed_codes = np.zeros(last, np.bool_), np.zeros((len(caps), last), np.int32)
    codes = np.zeros((len(caps), len(rows)), np.int32)
    columns: list[TextColumn] = [getattr(catalogue, cap.by) for cap in caps]
    for c, column in enumerate(columns):
        codes[c] = column.codes(rows)
    if fixed:
        positions, fixed_rows = np.array(list(fixed), np.int64) - 1, np.array(list(fixed.values()), np.int64)
        is_fixed[positions] = True
        for c, column in enumerate(columns):
            fixed_codes[c, positions] = column.codes(fixed_rows)
    places, held_back = np.empty(count, np.int64), np.zeros((len(caps), len(rows)), np.bool_)
    fill_places(order, codes, limits_of(caps), offset, fixed_codes, is_fixed, places, held_back)
    return places, held_back
