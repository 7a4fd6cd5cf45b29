"""Defaults of the fold's settings, and bounds that the sums in rows rely on (see `state.rows.decay`)."""

SESSION_GAP_S = 1800
LATENESS_S = 600
PAIR_WINDOW = 3
NEIGHBOURS = 50
SHORT_HALF_LIFE_S = 86_400
LONG_HALF_LIFE_S = 7 * 86_400
AFFINITY_HALF_LIFE_S = 7 * 86_400
SCOPE_LIMIT = 200
SMALL_SCOPE_LIMIT = 50
DEDUPE_WINDOW = 1 << 20
MAX_CACHED_USERS = 1_000_000
MAX_CACHED_ITEMS = 1_000_000
WEIGHT_VIEW = 1.0
WEIGHT_CART = 3.0
WEIGHT_WISHLIST = 2.0
WEIGHT_PURCHASE = 5.0
WEIGHT_STAR = 1.0

MIN_HALF_LIFE_S, MAX_HALF_LIFE_S = 60, 10 * 365 * 86_400
MAX_WEIGHT = 100
"""Largest weight of an event kind, or of a star."""
LONGEST_GAP_S = 49 * 86_400
"""A history keeps times between events up to 49 days."""
YEAR_S = 366 * 86_400
