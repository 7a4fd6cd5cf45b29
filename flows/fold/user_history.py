"""The fold of one event into its user's history.

A late event is inserted at its place: the effects of the events behind it (`flows.fold.event_effects`) are taken back
first and applied again after it. The rows are the same as if it had come in time.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from flows.fold.event_effects import (
    NEEDED_SLOTS,
    RATING,
    FoldParams,
    FoldState,
    Int64s,
    ItemIndex,
    apply_effect,
    event_weight,
    kind_column,
    use,
)
from flows.fold.popularity import count_event
from flows.fold.profiles import profile_event
from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.prefetch import prefetch_row
from schemas.compiled.stack_array import stack_array
from schemas.events import FIRST_NEGATIVE_KIND, Kind
from state.rows.item_rows import FLAG_PRODUCT, ItemRows
from state.rows.lane_rows import DUPLICATES, LATE, MAX_TS, N_PRICE_BUCKETS, PRICES
from state.rows.row_codec import counted
from state.rows.session import SESSION_EVENTS
from state.rows.slot_map import ABSENT, find
from state.rows.user_rows import KIND_MASK, MAX_GAP_MS, MAX_HISTORY, STARS_SHIFT, UserRows
from state.store.row_deltas import NOT_AT_THE_END

FAR_AHEAD, NEAR_AHEAD = 16, 6
"""Events ahead of which user rows, and then the item rows they name, are fetched."""

PRICE_FLOOR_LN = float(np.log(0.01))
PRICE_BUCKET_LN = 0.25
SEARCH = int(Kind.SEARCH)
TOO_LATE = -1

_needed_items = stack_array(np.uint64, NEEDED_SLOTS)


@njit_no_refcount()
def _rows_ready(users: UserRows, slot: int, at: int, index: ItemIndex) -> bool:
    """Return whether every item row is cached that an event at history index `at` may change."""
    n: Any = np.int64(users[slot].n)
    if at < n:
        for j in range(n):
            if find(index.table, index.slot_at, users[slot].item[j]) == ABSENT:
                return False
        return True
    latest = _needed_items()
    m = 0
    for j in range(n - 1, max(n - 1 - SESSION_EVENTS, -1), -1):
        item = users[slot].item[j]
        known = False
        for r in range(m):
            known = known or latest[r] == item
        if known or users[slot].kind[j] & KIND_MASK >= FIRST_NEGATIVE_KIND:
            continue
        if find(index.table, index.slot_at, item) == ABSENT:
            return False
        latest[m] = item
        m += 1
        if m == NEEDED_SLOTS:
            break
    return True


@njit_no_refcount()
def _place(users: UserRows, slot: int, ts_ms: int, p: FoldParams) -> int:
    """Return the history index an event of this time belongs at, TOO_LATE when it cannot be placed.

    Events of the same time keep the order they came in. A late event can be placed
    while the row still holds the sessions of all events behind its place.
    """
    n: Any = np.int64(users[slot].n)
    at, ts = n, users[slot].last_ms
    if n == 0 or ts_ms >= ts:
        return n  # type: ignore[no-any-return]
    if ts - ts_ms > p.lateness_ms:
        return TOO_LATE
    while at > 0 and ts > ts_ms:
        at -= 1
        ts -= np.int64(users[slot].gap_ms[at])
    if users[slot].seen < MAX_HISTORY or at > SESSION_EVENTS:
        return at  # type: ignore[no-any-return]
    for j in range(1, at):
        if users[slot].gap_ms[j] > p.session_gap_ms:
            return at  # type: ignore[no-any-return]
    return TOO_LATE


@njit_no_refcount()
def _time_of(users: UserRows, slot: int, k: int) -> int:
    ts = users[slot].last_ms
    for j in range(np.int64(users[slot].n) - 1, k, -1):
        ts -= np.int64(users[slot].gap_ms[j])
    return ts  # type: ignore[no-any-return]


@njit_no_refcount()
def _insert(users: UserRows, slot: int, at: int, item: np.uint64, kind: int, ts_ms: int) -> int:
    """Put an event at history index `at`, shifting out the oldest of a full history; return its index."""
    n: Any = np.int64(users[slot].n)
    before = ts_ms - _time_of(users, slot, at - 1) if at > 0 else MAX_GAP_MS
    appended = np.int64(users[slot].appended)
    users[slot].appended = NOT_AT_THE_END if at < n else min(appended + 1, NOT_AT_THE_END)
    if at < n:
        users[slot].gap_ms[at] = np.uint32(min(_time_of(users, slot, at) - ts_ms, MAX_GAP_MS))
    else:
        users[slot].last_ms = ts_ms
    if n == MAX_HISTORY:
        for j in range(at - 1):
            users[slot].item[j] = users[slot].item[j + 1]
            users[slot].gap_ms[j] = users[slot].gap_ms[j + 1]
            users[slot].kind[j] = users[slot].kind[j + 1]
        at -= 1
    else:
        for j in range(n, at, -1):
            users[slot].item[j] = users[slot].item[j - 1]
            users[slot].gap_ms[j] = users[slot].gap_ms[j - 1]
            users[slot].kind[j] = users[slot].kind[j - 1]
        users[slot].n = n + 1
    users[slot].item[at] = item
    users[slot].gap_ms[at] = np.uint32(min(before, MAX_GAP_MS))
    users[slot].kind[at] = kind
    users[slot].seen = counted(users[slot].seen, 1)
    return at


@njit_no_refcount()
def _remember(state: FoldState, slot: int, at: int, item: np.uint64, kind: int, ts_ms: int) -> None:
    """Insert an event at history index `at`; the effects of the events behind it are taken back and applied again."""
    users = state.users
    n: Any = np.int64(users[slot].n)
    for k in range(n - 1, at - 1, -1):
        apply_effect(state, slot, k, -1)
    placed = _insert(users, slot, at, item, kind, ts_ms)
    for k in range(placed, np.int64(users[slot].n)):
        apply_effect(state, slot, k, 1)


@njit_no_refcount()
def _count(state: FoldState, user: int, item_slot: int, event: Any, kind: int, weight: float) -> None:
    """Count what needs no order: popularity, profile, prices, counters."""
    users, items, totals, p = state.users, state.items, state.totals, state.params
    ts_ms, price, category, brand = event.ts_ms, event.price, event.category, event.brand
    if users[user].first_ms == 0 or ts_ms < users[user].first_ms:
        users[user].first_ms = ts_ms
    if item_slot != ABSENT:
        if items[item_slot].first_ms == 0 or ts_ms < items[item_slot].first_ms:
            items[item_slot].first_ms = ts_ms
        if items[item_slot].flags & FLAG_PRODUCT == 0:
            if items[item_slot].category == 0:
                items[item_slot].category = category
            if items[item_slot].brand == 0:
                items[item_slot].brand = brand
            if items[item_slot].price == 0.0 and price > 0.0:
                items[item_slot].price = price
        category, brand = items[item_slot].category, items[item_slot].brand
        count_event(items, item_slot, totals, ts_ms, weight, p.half_lives_ms)
    column = kind_column(kind)
    if column >= 0 and item_slot != ABSENT:
        items[item_slot].kinds[column] = counted(items[item_slot].kinds[column], 1)
    if kind == SEARCH:
        column = 3
    if column >= 0:
        users[user].counts[column] = counted(users[user].counts[column], 1)
    profile_event(users, user, ts_ms, weight, price, category, brand, p.affinity_half_life_ms)
    if price > 0.0:
        bucket = int((np.log(price) - PRICE_FLOOR_LN) / PRICE_BUCKET_LN)
        totals[PRICES + min(max(bucket, 0), N_PRICE_BUCKETS - 1)] += 1
    totals[MAX_TS] = max(totals[MAX_TS], ts_ms)


@njit_no_refcount()
def _fetch_ahead(
    events: np.ndarray, i: int, user_slots: Int64s, users: UserRows, items: ItemRows, index: ItemIndex
) -> None:
    """Ask for the rows that the events some places ahead will need (`schemas.compiled.prefetch`)."""
    if i + FAR_AHEAD < len(events):
        prefetch_row(users, user_slots[i + FAR_AHEAD])
    if i + NEAR_AHEAD < len(events):
        user = user_slots[i + NEAR_AHEAD]
        n = np.int64(users[user].n)
        for k in range(NEEDED_SLOTS):
            item = events[i + NEAR_AHEAD].item
            if k > 0:
                if n < k:
                    break
                item = users[user].item[n - k]
            slot = find(index.table, index.slot_at, item) if item != 0 else ABSENT
            if slot != ABSENT:
                prefetch_row(items, slot)


@njit_no_refcount(nogil=True)
def fold_events(
    events: np.ndarray, fresh: npt.NDArray[np.bool_], first: int, user_slots: Int64s, state: FoldState
) -> int:
    """Fold `events[first:]` in order; return the index of the first event whose item rows are not all cached.

    `events`: COLUMN_DTYPE; `fresh` False marks a duplicate, which is only counted.
    Returns `len(events)` when all are folded. An event is folded whole or not at all.
    """
    users, index, totals, p = state.users, state.item_index, state.totals, state.params
    for i in range(first, len(events)):
        _fetch_ahead(events, i, user_slots, users, state.items, index)
        event = events[i]
        if not fresh[i]:
            totals[DUPLICATES] += 1
            continue
        user, item, ts_ms = user_slots[i], event.item, event.ts_ms
        kind: Any = np.int64(event.kind)
        item_slot = ABSENT
        at = TOO_LATE
        if item != 0:
            item_slot = find(index.table, index.slot_at, item)
            if item_slot == ABSENT:
                return i
            at = _place(users, user, ts_ms, p)
            if at != TOO_LATE and not _rows_ready(users, user, at, index):
                return i
            use(index, item_slot)
            state.touched[item_slot] = index.round_no
        _count(state, user, item_slot, event, kind, event_weight(kind, event.value, p.weights))
        if item != 0:
            if at == TOO_LATE:
                totals[LATE] += 1
            else:
                stars: Any = np.int64(event.value) if kind == RATING else 0
                _remember(state, user, at, item, kind | stars << STARS_SHIFT, ts_ms)
    return len(events)
