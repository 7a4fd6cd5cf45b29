"""Metrics of anchors on their way to this machine, of flows and servers alike."""

from prometheus_client import Counter, Gauge

FETCHES = Counter("headrace_anchor_fetches", "Anchors brought to this machine, by how that ended", ["outcome"])
"""Outcomes: done, unavailable (tried again), damaged (given up)."""
WAITING_SECONDS = Gauge(
    "headrace_anchor_waiting_seconds", "How long an anchor has been wanted that is not here, else 0"
)
