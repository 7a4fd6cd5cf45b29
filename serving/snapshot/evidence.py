"""The evidence that a visitor's history holds about an item: what a reason may claim."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.events import Kind
from state.rows.user_rows import KIND_MASK, STARS_SHIFT

UNSEEN, VIEWED, INTERESTED, CARTED, BOUGHT = range(5)
"""From nothing to the strongest. INTERESTED: wish list, share, or a rating of GOOD_STARS or more."""
GOOD_STARS = 3
_VIEW, _CLICK, _CART = int(Kind.VIEW), int(Kind.CLICK), int(Kind.ADD_TO_CART)
_WISHLIST, _SHARE = int(Kind.WISHLIST), int(Kind.SHARE)
_PURCHASE, _RATING = int(Kind.PURCHASE), int(Kind.RATING)


@njit_no_refcount()
def evidence_of(history: npt.NDArray[np.uint64], kinds: npt.NDArray[np.uint8], n_events: int, item: np.uint64) -> int:
    """Return the strongest thing that the first `n_events` of a history hold about an item: UNSEEN to BOUGHT.

    `kinds`: as a user's row holds them, with the stars of ratings.
    """
    strongest = UNSEEN
    for k in range(n_events):
        if history[k] != item:
            continue
        kind, stars = np.int64(kinds[k]) & KIND_MASK, np.int64(kinds[k]) >> STARS_SHIFT
        found = UNSEEN
        if kind == _PURCHASE:
            found = BOUGHT
        elif kind == _CART:
            found = CARTED
        elif kind in (_WISHLIST, _SHARE) or (kind == _RATING and stars >= GOOD_STARS):
            found = INTERESTED
        elif kind in (_VIEW, _CLICK):
            found = VIEWED
        strongest = max(strongest, found)
    return strongest
