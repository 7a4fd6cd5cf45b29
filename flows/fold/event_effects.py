"""The effect of one event of a user's history on the item rows, added or taken back.

What a user contributes to an item row is a sum over the user's events, in time order, of a function of the event and
of the session before it. So it can be taken back event by event: when a late event is put in its place, and when the
user is erased.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.fold.cooccurrence import count_pairs
from flows.fold.repeats import count_repeats
from schemas.compiled.njit import njit, njit_no_refcount
from schemas.compiled.stack_array import stack_array
from schemas.events import FIRST_NEGATIVE_KIND, Kind
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import EVENTS, SESSIONS
from state.rows.row_codec import counted
from state.rows.session import MAX_DISTINCT, SESSION_EVENTS, distinct_latest_first
from state.rows.slot_map import find
from state.rows.user_rows import KIND_MASK, UserRows

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
NEEDED_SLOTS = 4
"""Of a session's distinct items, only so many rows change when the next event comes."""
RATING, PURCHASE, CART = int(Kind.RATING), int(Kind.PURCHASE), int(Kind.ADD_TO_CART)
VIEW, CLICK = int(Kind.VIEW), int(Kind.CLICK)
NEUTRAL_STARS = 2.5

_session_items, _places = stack_array(np.uint64, SESSION_EVENTS), stack_array(np.int8, SESSION_EVENTS)
_needed_slots = stack_array(np.int64, NEEDED_SLOTS)


class FoldParams(NamedTuple):
    """The lane's settings, as the kernels need them."""

    session_gap_ms: int
    lateness_ms: int
    window: int
    capacity: int
    half_lives_ms: Int64s  # short, long
    affinity_half_life_ms: int
    weights: npt.NDArray[np.float64]  # by kind; a rating's is per star above NEUTRAL_STARS


class ItemIndex(NamedTuple):
    """The parts of the items' SlotMap a kernel reads, and where it marks what it changed."""

    table: Uint64s
    slot_at: npt.NDArray[np.int32]
    used_in: Int64s
    changed_in: Int64s
    round_no: int


class FoldState(NamedTuple):
    """The state that folding an event may change, and its settings."""

    users: UserRows
    items: ItemRows
    item_index: ItemIndex
    touched: Int64s  # (slots,): `touched[slot]` is the last round in which an item's popularity changed
    totals: Int64s  # (lane_rows.SIZE,): the lane's globals
    params: FoldParams


@njit_no_refcount()
def use(index: ItemIndex, slot: int) -> None:
    """Mark an item row used and changed."""
    index.used_in[slot] = index.round_no
    index.changed_in[slot] = index.round_no


@njit_no_refcount()
def session_start(users: UserRows, slot: int, k: int, gap_ms: int) -> int:
    """Return the history index at which the session before event k begins.

    Looks back at most SESSION_EVENTS events, and only while no two neighbouring
    events lie more than `gap_ms` apart.
    """
    at = k
    while at > 0 and k - at < SESSION_EVENTS and users[slot].gap_ms[at] <= gap_ms:
        at -= 1
    return at


@njit_no_refcount()
def session_before(users: UserRows, slot: int, k: int, gap_ms: int, out: Uint64s) -> int:
    """Write the items of the session before history event k, oldest first, none of negative events; return how many."""
    n = 0
    for j in range(session_start(users, slot, k, gap_ms), k):
        if users[slot].kind[j] & KIND_MASK < FIRST_NEGATIVE_KIND:
            out[n] = users[slot].item[j]
            n += 1
    return n


@njit_no_refcount()
def apply_effect(state: FoldState, slot: int, k: int, sign: int) -> None:
    """Add (sign 1) or take back (sign -1) the effect of history event k. Every row it needs has a slot."""
    users, items, index, totals, p = state.users, state.items, state.item_index, state.totals, state.params
    if users[slot].kind[k] & KIND_MASK >= FIRST_NEGATIVE_KIND:
        return
    session, distinct, place, slots = _session_items(), _session_items(), _places(), _needed_slots()
    item = users[slot].item[k]
    item_slot = find(index.table, index.slot_at, item)
    use(index, item_slot)
    n = session_before(users, slot, k, p.session_gap_ms, session)
    totals[EVENTS] += sign
    if n == 0:
        totals[SESSIONS] += sign
        items[item_slot].support = counted(items[item_slot].support, sign)
        return
    m = distinct_latest_first(session, n, distinct, place)
    for r in range(min(m, NEEDED_SLOTS)):
        slots[r] = find(index.table, index.slot_at, distinct[r])
        use(index, slots[r])
    known = False
    for r in range(min(m, MAX_DISTINCT)):
        known = known or distinct[r] == item
    if not known:
        items[item_slot].support = counted(items[item_slot].support, sign)
    count_pairs(items, item, item_slot, distinct, slots, m, p.window, p.capacity, sign)
    count_repeats(items, totals, item, place, n, distinct, slots, m, sign)


@njit_no_refcount()
def event_weight(kind: int, value: float, weights: npt.NDArray[np.float64]) -> float:
    """Return what an event weighs: its kind's weight, a rating by its stars, negative kinds negative."""
    if kind == RATING:
        return weights[kind] * (value - NEUTRAL_STARS)  # type: ignore[no-any-return]
    return weights[kind]  # type: ignore[no-any-return]


@njit()
def event_weights(
    kinds: npt.NDArray[np.uint8], values: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Return `event_weight` of every event."""
    out = np.empty(len(kinds), np.float32)
    for i in range(len(kinds)):
        out[i] = event_weight(np.int64(kinds[i]), values[i], weights)  # type: ignore[arg-type]
    return out


@njit_no_refcount()
def kind_column(kind: int) -> int:
    """Return which of an item's counters (views, carts, purchases) counts events of this kind, -1 for none."""
    if kind in (VIEW, CLICK):
        return 0
    if kind == CART:
        return 1
    return 2 if kind == PURCHASE else -1
