"""The registry of a server's metrics, and the metrics of answering over all interfaces.

A registry of its own: flow and server share modules, and each shows its own metrics only.
"""

import time
from collections.abc import Sequence
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from serving.request.answer import Answer
from serving.rules.acting import RULE_FAILURES
from state.anchors.metrics import FETCHES, WAITING_SECONDS

SERVER = CollectorRegistry()
ProcessCollector(registry=SERVER)
PlatformCollector(registry=SERVER)
GCCollector(registry=SERVER)
for shared in (FETCHES, WAITING_SECONDS, RULE_FAILURES):
    SERVER.register(shared)

ANSWERS = Counter("headrace_answers", "Answers given", ["method", "fallback"], registry=SERVER)
LATENCY = Histogram("headrace_answer_seconds", "Time to answer a call", ["method"], registry=SERVER)
STAGE_SECONDS = Counter("headrace_answer_stage_seconds", "Time of answers by stage", ["stage"], registry=SERVER)
STAGES = {name: STAGE_SECONDS.labels(name) for name in ("read_users", "score", "read_vectors", "assemble")}
SHED = Counter("headrace_shed", "Requests not answered in full because too many waited", ["how"], registry=SERVER)
FAILURES = Counter(
    "headrace_request_failures", "Calls that could not be answered because of a fault of the server's", registry=SERVER
)
IMPRESSIONS = Counter("headrace_impressions", "Exposures by what became of them", ["outcome"], registry=SERVER)
BOOK_MISSING = Gauge(
    "headrace_book_missing",
    "1 while the last known book of rules is used because Redis and the log have none",
    registry=SERVER,
)
AWAY = Gauge(
    "headrace_store_away", "1 while answers come from memory because Redis does not answer in time", registry=SERVER
)
BUILD = Gauge("headrace_build_info", "1; the label has the version that runs", ["version"], registry=SERVER)
CATALOGUE_ITEMS = Gauge("headrace_catalogue_items", "Items the server knows", registry=SERVER)
RULES_VERSION = Gauge("headrace_rules_version", "Version of the book of rules in use; 0: none", registry=SERVER)
ANCHOR_AGE = Gauge(
    "headrace_anchor_age_seconds", "Time since the anchor in use was trained; 0 without an anchor", registry=SERVER
)


class StageClock:
    """Adds the time since it was made, or since the last lap, to that of a stage."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap for `stage`, one of STAGES."""
        now = time.perf_counter()
        STAGES[stage].inc(now - self._at)
        self._at = now


@cache
def _counters(method: str, fallback: str) -> tuple[Counter, Histogram]:
    return ANSWERS.labels(method, fallback), LATENCY.labels(method)


def count(method: str, answers: Sequence[Answer]) -> None:
    """Count the answers of one call, and the time of the slowest as that of the call."""
    n_of: dict[str, int] = {}
    slowest = 0.0
    for answer in answers:
        n_of[answer.fallback] = n_of.get(answer.fallback, 0) + 1
        if answer.milliseconds > slowest:
            slowest = answer.milliseconds
    for fallback, n in n_of.items():
        given, latency = _counters(method, fallback)  # looking labels up costs more than counting
        given.inc(n)
    latency.observe(slowest / 1000)
