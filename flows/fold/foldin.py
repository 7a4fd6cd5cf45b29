"""A user's vector from the items of the history: the exact ALS half-step.

    x = (YᵀY + Yᵀ(C − I)Y + λI)⁻¹ YᵀC p          (Hu, Koren, Volinsky, ICDM 2008)

In whitened space (`state.anchor`) that is z = t − Wᵤᵀ (D⁻¹ + WᵤWᵤᵀ)⁻¹ Wᵤ t with
t = Wᵤᵀ c and D = diag(c − 1): one small Cholesky (Woodbury). The vector is a pure
function of the history, so a crash or another batching cannot change its bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from flows.fold.event_effects import NEUTRAL_STARS, RATING
from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.prefetch import prefetch_row
from schemas.events import FIRST_NEGATIVE_KIND
from state.anchor import Anchor
from state.rows.slot_map import ABSENT, find
from state.rows.user_rows import KIND_MASK, STARS_SHIFT, UserRows

FOLD_ITEMS = 32
"""The latest distinct items of the history that make the vector."""
SPARE = 8
"""Events that repeat an item, of which there are usually a few among the latest."""
LANES = 64
"""Users whose systems are solved side by side: the innermost loops run over users, in vector registers."""
SMALLEST_EXTRA = np.float32(1e-6)  # a confidence of 1 would make D singular

Floats = npt.NDArray[np.float32]


@njit_no_refcount(nogil=True, fastmath=True)
def _set_up(
    whitened: Floats, row_of: npt.NDArray[np.int64], confidence: Floats, h: int, lane: int,
    gram: Floats, right: Floats, out: Floats,
) -> None:  # fmt: skip
    """Write a user's t = Wᵤᵀ c into `out`, and D⁻¹ + WᵤWᵤᵀ and Wᵤ t into a lane of `gram` and `right`.

    The user's items are rows `row_of[:h]` of `whitened`; `confidence`: c >= 1.
    `gram` (FOLD_ITEMS, FOLD_ITEMS, LANES) gets its upper triangle; from row h on it is the identity.
    """
    d = len(out)
    for k in range(d):
        out[k] = 0
    for i in range(h):
        row, x = row_of[i], confidence[i]  # named, so that the compiler knows the loop does not change them
        for k in range(d):
            out[k] += x * whitened[row, k]
    for i in range(h):
        row = row_of[i]
        j = 0
        while j + 4 <= i + 1:  # four sums at a time share the loads of row i
            row_a, row_b, row_c, row_e = row_of[j], row_of[j + 1], row_of[j + 2], row_of[j + 3]
            a = b = c = e = np.float32(0)
            for k in range(d):
                x = whitened[row, k]
                a += x * whitened[row_a, k]
                b += x * whitened[row_b, k]
                c += x * whitened[row_c, k]
                e += x * whitened[row_e, k]
            gram[j, i, lane], gram[j + 1, i, lane], gram[j + 2, i, lane], gram[j + 3, i, lane] = a, b, c, e
            j += 4
        while j <= i:
            row_a = row_of[j]
            a = np.float32(0)
            for k in range(d):
                a += whitened[row, k] * whitened[row_a, k]
            gram[j, i, lane] = a
            j += 1
        gram[i, i, lane] += np.float32(1) / max(confidence[i] - np.float32(1), SMALLEST_EXTRA)
        a = np.float32(0)
        for k in range(d):
            a += whitened[row, k] * out[k]
        right[i, lane] = a
    for i in range(h, FOLD_ITEMS):
        for j in range(i):
            gram[j, i, lane] = 0
        gram[i, i, lane] = 1
        right[i, lane] = 0


@njit_no_refcount(nogil=True, fastmath=True)
def _solve(gram: Floats, right: Floats, h: int) -> None:
    """Solve LANES systems of size h at once by Cholesky, in place: `right` becomes the solutions."""
    for j in range(h):
        for lane in range(LANES):
            gram[j, j, lane] = np.float32(1) / np.sqrt(gram[j, j, lane])  # the inverse of the pivot
        for i in range(j + 1, h):
            for lane in range(LANES):
                gram[j, i, lane] *= gram[j, j, lane]
        for i in range(j + 1, h):
            for k in range(i, h):
                for lane in range(LANES):
                    gram[i, k, lane] -= gram[j, i, lane] * gram[j, k, lane]
    for i in range(h):
        for lane in range(LANES):
            right[i, lane] *= gram[i, i, lane]
        for k in range(i + 1, h):
            for lane in range(LANES):
                right[k, lane] -= gram[i, k, lane] * right[i, lane]
    for i in range(h - 1, -1, -1):
        for k in range(i + 1, h):
            for lane in range(LANES):
                right[i, lane] -= gram[i, k, lane] * right[k, lane]
        for lane in range(LANES):
            right[i, lane] *= gram[i, i, lane]


@njit_no_refcount(nogil=True)
def _fetch_places(users: UserRows, slot: int, table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32]) -> None:
    """Ask for the places of `find`'s table where the user's latest items are looked for."""
    n: Any = np.int64(users[slot].n)
    mask = np.uint64(len(table) - 1)
    for j in range(max(n - FOLD_ITEMS - SPARE, 0), n):
        place: Any = np.int64(users[slot].item[j] & mask)
        prefetch_row(table, place)
        prefetch_row(slot_at, place)


@njit()
def _history_confidence(
    users: UserRows, slot: int, table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], alpha: float,
    weights: npt.NDArray[np.float64], items: npt.NDArray[np.uint64], row_of: npt.NDArray[np.int64], confidence: Floats,
) -> int:  # fmt: skip
    h = 0
    disliked = np.zeros(FOLD_ITEMS, np.bool_)
    for j in range(np.int64(users[slot].n) - 1, -1, -1):
        item, byte = users[slot].item[j], users[slot].kind[j]
        at = -1
        for i in range(h):
            if items[i] == item:
                at = i
                break
        if at < 0:
            row = find(table, slot_at, item) if h < FOLD_ITEMS else ABSENT
            if row == ABSENT:
                continue
            at = h
            items[at], row_of[at], confidence[at], disliked[at] = item, row, 1.0, False
            h += 1
        kind = byte & KIND_MASK
        if kind >= FIRST_NEGATIVE_KIND:
            disliked[at] = True
        elif kind == RATING:
            confidence[at] += alpha * max(weights[kind] * ((byte >> STARS_SHIFT) - NEUTRAL_STARS), 0.0)
        else:
            confidence[at] += alpha * weights[kind]
    kept = 0
    for i in range(h):
        if not disliked[i] and confidence[i] > 1.0:
            row_of[kept], confidence[kept] = row_of[i], confidence[i]
            kept += 1
    return kept


@njit(nogil=True)
def _vectors(
    users: UserRows, slots: npt.NDArray[np.int64], whitened: Floats, table: npt.NDArray[np.uint64],
    slot_at: npt.NDArray[np.int32], alpha: float, weights: npt.NDArray[np.float64],
) -> Floats:  # fmt: skip
    n, d = len(slots), whitened.shape[1]
    out, spare = np.empty((n, d), np.float32), np.empty(d, np.float32)
    items, row_of = np.empty(FOLD_ITEMS, np.uint64), np.empty((LANES, FOLD_ITEMS), np.int64)
    confidence = np.empty((LANES, FOLD_ITEMS), np.float32)
    gram = np.empty((FOLD_ITEMS, FOLD_ITEMS, LANES), np.float32)
    right = np.empty((FOLD_ITEMS, LANES), np.float32)
    used = np.zeros(LANES, np.int64)
    for first in range(0, n, LANES):
        size = min(LANES, n - first)
        used[:] = 0
        for lane in range(-2, LANES + 1):  # ahead of each user: its row, then where its items are, then their factors
            if lane + 2 < size:
                prefetch_row(users, slots[first + lane + 2])
            if 0 <= lane + 1 < size:
                _fetch_places(users, slots[first + lane + 1], table, slot_at)
            if 0 <= lane < size:
                slot = slots[first + lane]
                used[lane] = _history_confidence(
                    users, slot, table, slot_at, alpha, weights, items, row_of[lane], confidence[lane]
                )
                for i in range(used[lane]):
                    prefetch_row(whitened, row_of[lane, i])
            if lane > 0:
                at = lane - 1
                vector = out[first + at] if at < size else spare
                _set_up(whitened, row_of[at], confidence[at], used[at], at, gram, right, vector)
        _solve(gram, right, used.max())
        for lane in range(size):
            for i in range(used[lane]):
                row, x = row_of[lane, i], right[i, lane]
                for k in range(d):
                    out[first + lane, k] -= x * whitened[row, k]
    return out


def vectors_for(users: UserRows, slots: npt.NDArray[np.int64], anchor: Anchor) -> Floats:
    """Return the whitened vector of each user, float32 (len(slots), d); zeros for one without known items."""
    index = anchor.rows_by_hash
    return _vectors(users, slots, anchor.whitened, index.table, index.slot_at, anchor.alpha, anchor.weights)
