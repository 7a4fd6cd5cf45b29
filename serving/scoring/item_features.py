"""Features from one item's row and embedding: support, popularity, trend, cosine to the session."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.vector_math import power_of_2
from serving.scoring.parameters import ScoreConfig
from state.rows.decay import EPOCH_HALF_LIVES, epoch_of, value_at
from state.rows.item_rows import ADJ, BWD, FAR, PAIR_UNIT, ItemRows
from state.rows.lane_rows import COUNT, POP
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import ABSENT

KAPPA = 2.0
"""Added to an item's total co-occurrence where shares of it are taken: few pairs say little."""
BWD_WEIGHT = 0.8
RANK_DECAY = 2.5
RANK_WEIGHTS = np.array([math.exp(-r / RANK_DECAY) for r in range(MAX_DISTINCT)])
"""How much an item of the session counts, by its recency rank."""
MOST_EPOCHS = 60
"""Between a row and the moment: what is older weighs nothing."""

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


class ItemTable(NamedTuple):
    """Item rows, and how to find an item's."""

    rows: ItemRows
    ids: npt.NDArray[np.uint64]  # hash table of ids (`state.rows.slot_map.find`)
    slot_at: npt.NDArray[np.int32]  # slot of the id at each of its places
    embedding: Floats32  # (len(rows), d): vectors of length 1, or (0, 0) where there are none


class PopularitySnapshot(NamedTuple):
    """Popularity as of one moment, by half-life (short, long)."""

    sums: Floats  # (3,): weight of all items at both half-lives, and undecayed; never 0
    epoch: Int64s  # (2,): the moment's own epoch
    scale: Floats  # (2,): what a sum of that epoch is multiplied by


@njit_no_refcount()
def total_cooccurrence(rows: ItemRows, slot: int) -> float:
    """Return R = adj + far + 0.8 · bwd over everything the row ever counted, in pairs."""
    total = rows[slot].total
    pairs: float = (total[ADJ] + total[FAR] + BWD_WEIGHT * total[BWD]) / PAIR_UNIT
    return pairs


@njit_no_refcount()
def cooccurrence(rows: ItemRows, slot: int, j: int) -> float:
    """Return adj + far + 0.8 · bwd of the row's neighbour j, in 1/PAIR_UNIT."""
    weight = rows[slot].weight
    mass: float = weight[ADJ, j] + weight[FAR, j] + BWD_WEIGHT * weight[BWD, j]
    return mass


@njit()
def popularity_snapshot(totals: Int64s, c: ScoreConfig, now_ms: int) -> PopularitySnapshot:
    """Return the popularity of all items together as of `now_ms`."""
    sums, epoch, scale = np.empty(3), np.empty(2, np.int64), np.empty(2)
    half_lives = (c.short_half_life_ms, c.long_half_life_ms)
    for h in range(2):
        at = POP + 3 * h
        sums[h] = value_at(totals[at], totals[at + 1], totals[at + 2], half_lives[h], now_ms)
        epoch[h] = epoch_of(now_ms, half_lives[h])
        scale[h] = value_at(epoch[h], 1, 0, half_lives[h], now_ms)
    sums[2] = totals[COUNT]
    for k in range(3):
        sums[k] = max(sums[k], 1e-9)
    return PopularitySnapshot(sums, epoch, scale)


@njit_no_refcount(error_model="numpy")
def _popularity(rows: ItemRows, slot: int, h: int, now: PopularitySnapshot) -> float:
    """Return `value_at` of an item's sums: a power of two away from the moment's scale, mostly by 0."""
    total = rows[slot].pop[h, 0] + rows[slot].pop[h, 1] * 2.0**-EPOCH_HALF_LIVES
    epochs = min(max(np.int64(rows[slot].pop_epoch[h]) - now.epoch[h], -MOST_EPOCHS), MOST_EPOCHS)
    return max(np.float64(total * power_of_2(EPOCH_HALF_LIVES * epochs) * now.scale[h]), 0.0)


@njit_no_refcount(error_model="numpy")
def item_facts(rows: ItemRows, slot: int, now: PopularitySnapshot) -> tuple[float, float, float, float]:
    """Return (support, short popularity, undecayed weight, e to the trend) of an item; ABSENT counts as never seen."""
    support, p1, p7, count = 1.0, 0.0, 0.0, 0.0
    if slot != ABSENT:
        support = max(np.float64(rows[slot].support), 1.0)
        p1, p7 = _popularity(rows, slot, 0, now), _popularity(rows, slot, 1, now)
        count = max(np.float64(rows[slot].count), 0.0)
    share7 = (p7 + 0.5) / now.sums[1]
    return support, p1, count, (p1 + 5.0 * share7) / ((now.sums[0] + 5.0) * share7)


@njit_no_refcount(fastmath=True)
def cosine(embedding: Floats32, slot: int, mean_vector: Floats32, last_vector: Floats32) -> tuple[float, float]:
    """Return the inner products of an item's vector with two others; the processor chooses the order of summing."""
    to_all, to_last = np.float32(0.0), np.float32(0.0)
    for k in range(len(mean_vector)):
        to_all += embedding[slot, k] * mean_vector[k]
        to_last += embedding[slot, k] * last_vector[k]
    return np.float64(to_all), np.float64(to_last)


@njit_no_refcount()
def session_vectors(embedding: Floats32, slots: Int64s, m: int, mean_vector: Floats32, last_vector: Floats32) -> None:
    """Write the unit vectors of the whole session (recent items count more) and of its last item."""
    mean_vector[:] = 0.0
    last_vector[:] = 0.0
    for r in range(m):
        if slots[r] == ABSENT:
            continue
        weight = np.float32(RANK_WEIGHTS[r])
        for k in range(len(last_vector)):
            mean_vector[k] += weight * embedding[slots[r], k]
            if r == 0:
                last_vector[k] = embedding[slots[r], k]
    length = np.float32(0.0)
    for k in range(len(mean_vector)):
        length += mean_vector[k] * mean_vector[k]
    if length > 0.0:
        for k in range(len(mean_vector)):
            mean_vector[k] /= np.float32(math.sqrt(length))
