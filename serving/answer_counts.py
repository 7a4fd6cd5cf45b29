"""How many answers were given, over all interfaces, and the time they took."""

from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter, Histogram

from serving.requests import Answer

ANSWERS = Counter("headrace_answers", "Answers given", ["method", "fallback"])
LATENCY = Histogram("headrace_answer_seconds", "Time to answer", ["method"])


@cache
def _counters(method: str, fallback: str) -> tuple[Counter, Histogram]:
    return ANSWERS.labels(method, fallback), LATENCY.labels(method)


def count(method: str, answers: Sequence[Answer]) -> None:
    """Count answers."""
    for answer in answers:
        given, latency = _counters(method, answer.fallback)  # looking labels up costs more than counting
        given.inc()
        latency.observe(answer.milliseconds / 1000)
