"""Takes back the effects of a user's history: the rows are then those of a shop that never saw the user.

Only events that the user's row still holds can be taken back: the last 50. The effects of older ones stay in the
sums; docs/operate.md lists what stays, and how to remove it.
"""

import numpy as np

from flows.fold.event_effects import FoldState, apply_effect, event_weight, kind_column, session_start, use
from flows.fold.popularity import count_event, count_for_good
from schemas.compiled.njit import njit_no_refcount
from state.rows.session import SESSION_EVENTS
from state.rows.slot_map import find
from state.rows.user_rows import KIND_MASK, MAX_GAP_MS, STARS_SHIFT, UserRows


@njit_no_refcount()
def _knows_session(users: UserRows, slot: int, k: int, gap_ms: int) -> bool:
    """Return whether the history holds the whole session before event k, as it was when the event was folded."""
    at = session_start(users, slot, k, gap_ms)
    return at > 0 or k - at == SESSION_EVENTS or users[slot].gap_ms[0] > gap_ms


@njit_no_refcount()
def take_back_history(state: FoldState, slot: int) -> None:
    """Take back the effects and weights of a history's events; every item of it has its row cached."""
    users, items, index, totals, p = state.users, state.items, state.item_index, state.totals, state.params
    ts_ms, knows_time = users[slot].last_ms, True
    for k in range(int(users[slot].n) - 1, -1, -1):
        item_slot = find(index.table, index.slot_at, users[slot].item[k])
        use(index, item_slot)
        state.touched[item_slot] = index.round_no
        if _knows_session(users, slot, k, p.session_gap_ms):
            apply_effect(state, slot, k, -1)
        kind = int(users[slot].kind[k])
        weight = event_weight(kind & KIND_MASK, float(kind >> STARS_SHIFT), p.weights)
        if knows_time:
            count_event(items, item_slot, totals, ts_ms, -weight, p.half_lives_ms)
        else:  # seven weeks older than what came next: what decays is gone but for a hundredth
            count_for_good(items, item_slot, totals, -weight)
        column = kind_column(kind & KIND_MASK)
        if column >= 0:
            items[item_slot].kinds[column] -= 1
        gap_ms = np.int64(users[slot].gap_ms[k])
        if gap_ms == MAX_GAP_MS:
            knows_time = False
        ts_ms -= gap_ms
