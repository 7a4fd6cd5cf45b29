"""The fold of what users refuse, and take up again, into rows that the history does not push out.

A dislike, a return and a rating of at most LOW_STARS refuse an item; buying it, putting it into the cart and a better
rating lift that, unless they happened before. A user refuses MAX_REFUSED items at most: of more the newest are kept.
Taking something out of the cart refuses nothing here: that holds for the session, which the history shows.
"""

import numpy as np
import numpy.typing as npt

from flows.fold.encoded_rows import EncodedRows
from schemas.compiled.njit import njit, njit_no_refcount
from schemas.events import Columns, Kind
from state.rows import keys
from state.rows.refusal_rows import MAX_REFUSED, RefusalRows, decode_refusals, empty_refusals, encode_refusals
from state.rows.user_rows import FLAG_REFUSES, UserRows
from state.store.contract import Store

LOW_STARS = 2.0
USERS_AT_ONCE = 2_000
"""Rows that are unpacked together: at their longest they take six megabytes."""
LAST_SECOND = 2**32 - 1
REFUSING = int(Kind.DISLIKE), int(Kind.RETURN)
LIFTING = int(Kind.PURCHASE), int(Kind.ADD_TO_CART)
RATING = int(Kind.RATING)

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


@njit_no_refcount()
def verdict(kind: int, value: float) -> int:
    """Return 1 for an event that refuses its item, -1 for one that lifts a refusal, else 0."""
    if kind == RATING:
        return 1 if value <= LOW_STARS else -1
    if kind in REFUSING:
        return 1
    return -1 if kind in LIFTING else 0


@njit()
def _concerned(events: Columns, user_slots: Int64s, users: UserRows) -> tuple[Int64s, Uint64s]:
    """Return (which events count here, the users among theirs who refused nothing before): few of either.

    Marks the user rows of those who refuse something.
    """
    found, new, n, n_new = np.empty(len(events), np.int64), np.empty(len(events), np.uint64), 0, 0
    for i in range(len(events)):
        if events[i].item != 0 and verdict(int(events[i].kind), events[i].value) > 0:
            user = users[user_slots[i]]
            if user.flags & FLAG_REFUSES == 0:
                user.flags |= FLAG_REFUSES
                new[n_new] = events[i].user
                n_new += 1
    for i in range(len(events)):
        counts = events[i].item != 0 and verdict(int(events[i].kind), events[i].value) != 0
        if counts and users[user_slots[i]].flags & FLAG_REFUSES:
            found[n] = i
            n += 1
    return found[:n], new[:n_new]


@njit_no_refcount()
def _refuse(rows: RefusalRows, slot: int, at: int, item: np.uint64, second: int) -> None:
    """Put an item at its place `at`; from a full row the one refused longest ago goes, be it this one."""
    n = int(rows.n[slot])
    items, seconds = rows.item[slot], rows.second[slot]
    gap = n
    if n == MAX_REFUSED:
        gap = int(np.argmin(seconds))
        if second < seconds[gap]:
            return
        if gap < at:
            at -= 1
    else:
        rows.n[slot] = n + 1
    step = 1 if gap < at else -1
    while gap != at:
        items[gap], seconds[gap] = items[gap + step], seconds[gap + step]
        gap += step
    items[at], seconds[at] = item, second


@njit_no_refcount()
def _lift(rows: RefusalRows, slot: int, at: int) -> None:
    n = int(rows.n[slot]) - 1
    items, seconds = rows.item[slot], rows.second[slot]
    for j in range(at, n):
        items[j], seconds[j] = items[j + 1], seconds[j + 1]
    items[n], seconds[n] = 0, 0
    rows.n[slot] = n


@njit_no_refcount()
def fold_refusals(rows: RefusalRows, slots: Int64s, events: Columns) -> None:
    """Fold events, one by one, into the rows of their users, which are in `slots`."""
    for i in range(len(events)):
        slot, item, second = slots[i], events[i].item, min(events[i].ts_ms // 1000, LAST_SECOND)
        n = int(rows.n[slot])
        at = int(np.searchsorted(rows.item[slot, :n], item))
        there = at < n and rows.item[slot, at] == item
        if verdict(int(events[i].kind), events[i].value) > 0:
            if there:
                rows.second[slot, at] = max(int(rows.second[slot, at]), second)
            else:
                _refuse(rows, slot, at, item, second)
        elif there and second >= rows.second[slot, at]:
            _lift(rows, slot, at)


class RefusalFold(EncodedRows):
    """Keeps the rows of users who refuse something, and puts those a batch changed into its rows."""

    def __init__(self, store: Store, lane_prefix: bytes) -> None:
        super().__init__(store, lambda user: keys.refusals(lane_prefix, user))

    def fold(self, events: Columns, user_slots: Int64s, users: UserRows) -> None:
        """Fold events and mark in the user rows, which are in `user_slots`, who refuses something."""
        found, new = _concerned(events, user_slots, users)
        if not len(found):
            return
        self.have_none(new.tolist())
        events, user_slots = events[found], user_slots[found]
        who, first, which = np.unique(events["user"], return_index=True, return_inverse=True)
        order = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[order], np.arange(0, len(who) + USERS_AT_ONCE, USERS_AT_ONCE))
        for k, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            part = order[start:end]
            at = k * USERS_AT_ONCE
            some = who[at : at + USERS_AT_ONCE].tolist()
            rows, slots = empty_refusals(len(some)), np.arange(len(some))
            decode_refusals(self.read(some), slots, rows)
            fold_refusals(rows, which[part] - at, events[part])
            for user, n, value in zip(some, rows.n.tolist(), encode_refusals(rows, slots), strict=True):
                self.put(user, value if n else None)
            empty = user_slots[first[at : at + USERS_AT_ONCE]][rows.n == 0]
            users["flags"][empty] &= np.uint8(~FLAG_REFUSES & 0xFF)

    def erase(self, user: int) -> None:
        """Remove a user's row."""
        self.put(user, None)
