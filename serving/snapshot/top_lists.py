"""The popular items of the shop, a category, a brand or a country, with their trends; the lanes' rows as one list."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.catalogue.catalogue import Catalogue
from state.rows import lane_rows
from state.rows.decay import NO_SCORE, REFERENCE_MS

TRENDING = 1.5
"""An item trends when its popularity at the short half-life is this many times that at the long one."""
LEAST_RECENT = 5.5
"""Event weight of the short half-life below which nothing is called a trend: six views of the last hours, or two
purchases. One order alone is none."""
LEAST_SHARE = 1e-12

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class TopList(NamedTuple):
    """Items of a scope as columns, the most popular at the long half-life first; equal ones by item id."""

    hashes: Hashes
    weight: Floats  # log2 of the decayed weight
    trend: Floats  # log2 of short over long half-life, relative to a steady rate
    recent: Floats  # event weight, decayed by the short half-life
    share: Floats  # of the decayed weight of the first item, above 0

    @property
    def trending(self) -> npt.NDArray[np.bool_]:
        """Which of the items trend."""
        return (self.trend > math.log2(TRENDING)) & (self.recent >= LEAST_RECENT)


EMPTY_LIST = TopList(np.zeros(0, np.uint64), *(np.zeros(0) for _ in range(4)))


def merge_top_lists(
    kind: int, values: Sequence[bytes | None], catalogue: Catalogue, half_lives_ms: tuple[int, int], now_ms: int
) -> TopList:
    """Return the list of a scope at a time, given its rows of all lanes; `half_lives_ms`: the short one, the long one.

    Items whose decayed weight is 0 or less are left out.

    Decayed sums add up. At a steady rate such a sum is proportional to its half-life, so a trend is

        short / long − log2(short half-life / long half-life)
    """
    parts = []
    for value in values:
        if kind == lane_rows.COUNTRY:
            parts.append(lane_rows.country_scope(lane_rows.decode_country(value), half_lives_ms))
        else:
            parts.append(lane_rows.decode_scope(value))
    item, at = np.unique(np.concatenate([part.item for part in parts]), return_inverse=True)
    if not len(item):
        return EMPTY_LIST
    short, long = np.full((2, len(item)), NO_SCORE)
    np.logaddexp2.at(short, at, np.concatenate([part.short for part in parts]))
    np.logaddexp2.at(long, at, np.concatenate([part.long for part in parts]))
    popular = long > NO_SCORE / 2
    item, short, long = item[popular], short[popular], long[popular]
    if not len(item):
        return EMPTY_LIST
    texts = [catalogue.ids[row] if row >= 0 else "" for row in catalogue.rows_of(item).tolist()]
    order = np.array(sorted(range(len(item)), key=list(zip((-long).tolist(), texts, strict=True)).__getitem__))
    item, short, long = item[order], short[order].astype(np.float64), long[order].astype(np.float64)
    age_ms, (short_ms, long_ms) = now_ms - REFERENCE_MS, half_lives_ms
    steady = math.log2(short_ms / long_ms) + age_ms / short_ms - age_ms / long_ms
    return TopList(item, long, short - long - steady, np.exp2(short - age_ms / short_ms), shares_of(long))


def shares_of(weight: Floats) -> Floats:
    """Return decayed weights relative to that of the first item, given their log2."""
    shares: Floats = np.maximum(np.exp2(weight - weight[0]), LEAST_SHARE) if len(weight) else weight
    return shares
