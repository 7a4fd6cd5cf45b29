"""Bounds of settings that the sums in rows rely on (`state.rows.decay` says how)."""

MIN_HALF_LIFE_S, MAX_HALF_LIFE_S = 60, 10 * 365 * 86_400
MAX_WEIGHT = 100
"""Largest weight of an event kind, or of a star."""
LONGEST_GAP_S = 49 * 86_400
"""A history keeps times between events up to 49 days."""
YEAR_S = 366 * 86_400
