"""A visitor's profile: affinities, times of activity, prices, counts."""

import math
from typing import Any

import numpy as np

from schemas.compiled.njit import njit_no_refcount
from state.rows.user_rows import N_AFFINITIES, UserRows

AFFINITY_BITS = 8
AFFINITY_EPOCH = 8  # half-lives: the integers of one epoch then fit 32 bits
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PRICE_UNIT = 1000.0
MOST_PRICES = 2**29
"""Prices counted of a user; mean and spread no longer move then. |ln| of a float32 is at most 103.3, so the squares sum
to less than 2^29 · 103,300² < 2^63."""


@njit_no_refcount()
def _bump(counts: np.ndarray, at: int) -> None:
    """Count one more, halving all when a byte is full: the shape stays, the size is bounded."""
    if counts[at] == 255:
        for j in range(len(counts)):
            counts[j] >>= 1
    counts[at] += np.uint8(1)


@njit_no_refcount()
def _add_affinity(rows: UserRows, slot: int, which: int, id_hash: np.uint64, amount: int) -> None:
    """Add to an affinity; a ninth one takes the lightest one's place. They stay sorted by id, free places last."""
    key = np.uint32(id_hash & np.uint64(0xFFFFFFFF))
    weights, ids = rows[slot].affinity[which], rows[slot].affinity_id[which]
    lightest = 0
    for j in range(N_AFFINITIES):
        if ids[j] == key and weights[j] > 0:
            weights[j] = np.uint32(min(np.int64(weights[j]) + amount, 0xFFFFFFFF))  # type: ignore[arg-type]
            return
        if weights[j] < weights[lightest]:
            lightest = j
    for j in range(lightest, N_AFFINITIES - 1):
        ids[j], weights[j] = ids[j + 1], weights[j + 1]
    at = N_AFFINITIES - 1
    while at > 0 and (weights[at - 1] == 0 or ids[at - 1] > key):
        ids[at], weights[at] = ids[at - 1], weights[at - 1]
        at -= 1
    ids[at], weights[at] = key, np.uint32(min(amount, 0xFFFFFFFF))


@njit_no_refcount()
def _fade_affinities(rows: UserRows, slot: int, which: int, half_lives: int) -> None:
    """Halve the affinities so many times; those that reach nothing free their places."""
    weights, ids = rows[slot].affinity[which], rows[slot].affinity_id[which]
    kept = 0
    for j in range(N_AFFINITIES):
        left = weights[j] >> np.uint32(min(half_lives, 31))
        if left > 0:
            ids[kept], weights[kept] = ids[j], left
            kept += 1
    for j in range(kept, N_AFFINITIES):
        ids[j] = weights[j] = 0


@njit_no_refcount()
def profile_event(
    rows: UserRows,
    slot: int,
    ts_ms: int,
    weight: float,
    price: float,
    category: np.uint64,
    brand: np.uint64,
    half_life_ms: int,
) -> None:
    """Add one event to the affinities, hour and weekday counts and price sums of a user.

    `price` NaN, `category` 0 and `brand` 0 mean absent. A weight <= 0 adds no affinity.
    """
    _bump(rows[slot].hours, ts_ms // HOUR_MS % 24)
    _bump(rows[slot].days, (ts_ms // DAY_MS + 3) % 7)  # 1970-01-01 was a Thursday
    if price > 0.0 and rows[slot].price_n < MOST_PRICES:
        thousandths = np.int64(np.rint(math.log(price) * PRICE_UNIT))
        rows[slot].price_n += 1
        rows[slot].price_sum += thousandths
        rows[slot].price_square += thousandths * thousandths
    if weight <= 0.0:
        return
    epoch = ts_ms // (AFFINITY_EPOCH * half_life_ms)
    newer = epoch - rows[slot].affinity_epoch
    if newer > 0:
        for which in range(2):
            _fade_affinities(rows, slot, which, newer * AFFINITY_EPOCH)
        rows[slot].affinity_epoch = epoch
    into_epoch = ts_ms - epoch * AFFINITY_EPOCH * half_life_ms
    amount: Any = np.int64(np.rint(weight * 2.0 ** (AFFINITY_BITS + into_epoch / half_life_ms)))
    if newer < 0:
        amount >>= min(-newer * AFFINITY_EPOCH, 31)
    if category != 0 and amount > 0:
        _add_affinity(rows, slot, 0, category, amount)
    if brand != 0 and amount > 0:
        _add_affinity(rows, slot, 1, brand, amount)
