"""What a fold depends on."""

from dataclasses import dataclass, field

import numpy as np

from flows.fold.user_history import FoldParams
from schemas.events import Kind

DEFAULT_WEIGHTS: dict[Kind, float] = {
    Kind.VIEW: 1.0,
    Kind.CLICK: 1.0,
    Kind.ADD_TO_CART: 3.0,
    Kind.WISHLIST: 2.0,
    Kind.PURCHASE: 5.0,
    Kind.RATING: 1.0,
    Kind.SHARE: 2.0,
    Kind.REMOVE_FROM_CART: -3.0,
    Kind.RETURN: -5.0,
    Kind.DISLIKE: -3.0,
}


@dataclass(frozen=True)
class LaneSettings:
    """What a fold depends on; two lanes with equal settings make equal rows."""

    n_lanes: int = 1
    session_gap_ms: int = 30 * 60_000
    lateness_ms: int = 10 * 60_000
    pair_window: int = 3
    neighbours: int = 50
    short_half_life_ms: int = 86_400_000
    long_half_life_ms: int = 7 * 86_400_000
    affinity_half_life_ms: int = 7 * 86_400_000
    scope_limit: int = 200
    small_scope_limit: int = 50
    dedupe_window: int = 1 << 20
    max_cached_users: int = 1_000_000
    max_cached_items: int = 300_000
    weights: dict[Kind, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))

    def fold_params(self) -> FoldParams:
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
