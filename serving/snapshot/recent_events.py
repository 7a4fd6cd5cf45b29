"""The latest events of users: the running session, else the end of the history; for a whole batch at once."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.events import FIRST_NEGATIVE_KIND, Kind
from state.rows.session import SESSION_EVENTS
from state.rows.user_rows import KIND_MASK, UserRows

FIRST_NEGATIVE, PURCHASE, REMOVE_FROM_CART = FIRST_NEGATIVE_KIND, int(Kind.PURCHASE), int(Kind.REMOVE_FROM_CART)


class Recent(NamedTuple):
    """The latest events of a batch's users, from their rows; column i is that of the i-th user."""

    item: npt.NDArray[
        np.uint64
    ]  # (B, SESSION_EVENTS) what stands for the user: a running session, else the latest history
    n: npt.NDArray[np.int64]  # (B,) how many of them there are
    running: npt.NDArray[np.bool_]  # (B,) whether they are a session that still runs
    first: npt.NDArray[np.int64]  # (B,) where in the history the running session begins; its end where none runs
    removed: npt.NDArray[np.bool_]  # (B,) whether the running session took something out of the cart
    bought: npt.NDArray[np.bool_]  # (B,) whether some is a purchase


@njit_no_refcount()
def _recent(users: UserRows, now_ms: int, gap_ms: int, out: Recent) -> None:
    for i in range(len(users)):
        n: Any = np.int64(users[i].n)
        first = n
        if n > 0 and now_ms - users[i].last_ms <= gap_ms:
            first = n - 1
            while first > 0 and users[i].gap_ms[first] <= gap_ms:
                first -= 1
        out.running[i], out.first[i] = first < n, first
        for k in range(n):
            kind = users[i].kind[k] & KIND_MASK
            out.removed[i] |= kind == REMOVE_FROM_CART and k >= first
            out.bought[i] |= kind == PURCHASE
        came = 0  # from the newest back, then turned round
        for k in range(n - 1, (first if first < n else max(0, n - SESSION_EVENTS)) - 1, -1):
            if came < SESSION_EVENTS and users[i].kind[k] & KIND_MASK < FIRST_NEGATIVE:
                came += 1
                out.item[i, SESSION_EVENTS - came] = users[i].item[k]
        for k in range(came):
            out.item[i, k] = out.item[i, SESSION_EVENTS - came + k]
        out.n[i] = came


def recent_events(users: UserRows, now_ms: int, gap_ms: int) -> Recent:
    """Return the latest events of users, oldest first; negative ones are left out."""
    b = len(users)
    flags = np.zeros((3, b), np.bool_)
    n, first = np.zeros((2, b), np.int64)
    found = Recent(np.zeros((b, SESSION_EVENTS), np.uint64), n, flags[0], first, flags[1], flags[2])
    _recent(users, now_ms, gap_ms, found)
    return found
