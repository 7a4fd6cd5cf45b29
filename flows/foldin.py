"""A user's vector from the items of the history: the exact ALS half-step.

    x = (YᵀY + Yᵀ(C − I)Y + λI)⁻¹ YᵀC p          (Hu, Koren, Volinsky, ICDM 2008)

In whitened space (`state.anchor`) that is z = t − Wᵤᵀ (D⁻¹ + WᵤWᵤᵀ)⁻¹ Wᵤ t with
t = Wᵤᵀ c and D = diag(c − 1): one small Cholesky (Woodbury). The vector is a pure
function of the history, so a crash or another batching cannot change its bytes.
"""

import numba
import numpy as np
import numpy.typing as npt

from flows.history import NEUTRAL_STARS, RATING
from schemas.events import FIRST_NEGATIVE_KIND
from state.anchor import Anchor
from state.slot_map import ABSENT, find
from state.user_rows import KIND_MASK, STARS_SHIFT, UserRows

FOLD_ITEMS = 32
"""The latest distinct items of the history that make the vector."""
SMALLEST_EXTRA = np.float32(1e-6)  # a confidence of 1 would make D singular

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, nogil=True, fastmath=True)
def fold_in_one(rows: Floats, confidence: Floats, h: int, gram: Floats, solved: Floats, out: Floats) -> None:
    """Write the whitened vector of a user with `h` items into `out`.

    `rows` (>= h, d): the items' whitened factors; `confidence` (>= h): c >= 1.
    `gram` (>= h, >= h) and `solved` (>= h) are scratch.
    """
    d = len(out)
    for k in range(d):
        out[k] = 0
    for i in range(h):
        for k in range(d):
            out[k] += confidence[i] * rows[i, k]
    for i in range(h):
        for j in range(i + 1):
            dot = np.float32(0)
            for k in range(d):
                dot += rows[i, k] * rows[j, k]
            gram[i, j] = dot
        gram[i, i] += np.float32(1) / max(confidence[i] - np.float32(1), SMALLEST_EXTRA)
        dot = np.float32(0)
        for k in range(d):
            dot += rows[i, k] * out[k]
        solved[i] = dot
    for j in range(h):  # Cholesky, lower triangle in place
        for k in range(j):
            gram[j, j] -= gram[j, k] * gram[j, k]
        gram[j, j] = np.sqrt(gram[j, j])
        inverse = np.float32(1) / gram[j, j]
        for i in range(j + 1, h):
            dot = gram[i, j]
            for k in range(j):
                dot -= gram[i, k] * gram[j, k]
            gram[i, j] = dot * inverse
    for i in range(h):
        for k in range(i):
            solved[i] -= gram[i, k] * solved[k]
        solved[i] /= gram[i, i]
    for i in range(h - 1, -1, -1):
        for k in range(i + 1, h):
            solved[i] -= gram[k, i] * solved[k]
        solved[i] /= gram[i, i]
    for i in range(h):
        for k in range(d):
            out[k] -= solved[i] * rows[i, k]


@numba.njit(cache=True)
def _history_confidence(
    users: UserRows, slot: int, table: npt.NDArray[np.uint64], slot_at: npt.NDArray[np.int32], alpha: float,
    weights: npt.NDArray[np.float64], items: npt.NDArray[np.uint64], row_of: npt.NDArray[np.int64], confidence: Floats,
) -> int:  # fmt: skip
    h = 0
    disliked = np.zeros(FOLD_ITEMS, np.bool_)
    for j in range(np.int64(users.n[slot]) - 1, -1, -1):
        item, byte = users.item[slot, j], users.kind[slot, j]
        at = -1
        for i in range(h):
            if items[i] == item:
                at = i
                break
        if at < 0:
            row = find(table, slot_at, item)
            if row == ABSENT or h == FOLD_ITEMS:
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


@numba.njit(cache=True, nogil=True)
def _vectors(
    users: UserRows, slots: npt.NDArray[np.int64], whitened: Floats, table: npt.NDArray[np.uint64],
    slot_at: npt.NDArray[np.int32], alpha: float, weights: npt.NDArray[np.float64],
) -> Floats:  # fmt: skip
    d = whitened.shape[1]
    out = np.empty((len(slots), d), np.float32)
    items, row_of = np.empty(FOLD_ITEMS, np.uint64), np.empty(FOLD_ITEMS, np.int64)
    confidence, solved = np.empty(FOLD_ITEMS, np.float32), np.empty(FOLD_ITEMS, np.float32)
    rows, gram = np.empty((FOLD_ITEMS, d), np.float32), np.empty((FOLD_ITEMS, FOLD_ITEMS), np.float32)
    for i in range(len(slots)):
        h = _history_confidence(users, slots[i], table, slot_at, alpha, weights, items, row_of, confidence)
        for j in range(h):
            rows[j] = whitened[row_of[j]]
        fold_in_one(rows, confidence, h, gram, solved, out[i])
    return out


def vectors_for(users: UserRows, slots: npt.NDArray[np.int64], anchor: Anchor) -> Floats:
    """Return the whitened vector of each user, float32 (len(slots), d); zeros for one without known items."""
    index = anchor.rows_by_hash
    return _vectors(users, slots, anchor.whitened, index.table, index.slot_at, anchor.alpha, anchor.weights)
