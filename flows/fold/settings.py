"""Settings of the fold."""

from dataclasses import dataclass, field

import numpy as np

from flows.fold.event_effects import FoldParams
from schemas.events import Kind
from state import bounds

DEFAULT_WEIGHTS: dict[Kind, float] = {
    Kind.VIEW: bounds.WEIGHT_VIEW,
    Kind.CLICK: bounds.WEIGHT_VIEW,
    Kind.ADD_TO_CART: bounds.WEIGHT_CART,
    Kind.WISHLIST: bounds.WEIGHT_WISHLIST,
    Kind.PURCHASE: bounds.WEIGHT_PURCHASE,
    Kind.RATING: bounds.WEIGHT_STAR,
    Kind.SHARE: bounds.WEIGHT_WISHLIST,
    Kind.REMOVE_FROM_CART: -bounds.WEIGHT_CART,
    Kind.RETURN: -bounds.WEIGHT_PURCHASE,
    Kind.DISLIKE: -bounds.WEIGHT_CART,
}


@dataclass(frozen=True)
class LaneSettings:
    """Settings of a lane; lanes with equal settings make equal rows."""

    n_lanes: int = 1
    session_gap_ms: int = bounds.SESSION_GAP_S * 1000
    lateness_ms: int = bounds.LATENESS_S * 1000
    pair_window: int = bounds.PAIR_WINDOW
    neighbours: int = bounds.NEIGHBOURS
    short_half_life_ms: int = bounds.SHORT_HALF_LIFE_S * 1000
    long_half_life_ms: int = bounds.LONG_HALF_LIFE_S * 1000
    affinity_half_life_ms: int = bounds.AFFINITY_HALF_LIFE_S * 1000
    scope_limit: int = bounds.SCOPE_LIMIT
    small_scope_limit: int = bounds.SMALL_SCOPE_LIMIT
    dedupe_window: int = bounds.DEDUPE_WINDOW
    max_cached_users: int = bounds.MAX_CACHED_USERS
    max_cached_items: int = bounds.MAX_CACHED_ITEMS
    weights: dict[Kind, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))

    def fold_params(self) -> FoldParams:
        """Return the numbers that the fold's kernels take."""
        by_kind = np.zeros(32, np.float64)
        for kind, weight in self.weights.items():
            by_kind[kind] = weight
        return FoldParams(
            self.session_gap_ms,
            self.lateness_ms,
            self.pair_window,
            self.neighbours,
            np.array([self.short_half_life_ms, self.long_half_life_ms], np.int64),
            self.affinity_half_life_ms,
            by_kind,
        )
