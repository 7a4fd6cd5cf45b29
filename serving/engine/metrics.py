"""How many answers were given, over all interfaces, and the time their calls took."""

from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter, Histogram

from serving.request.answer import Answer

ANSWERS = Counter("headrace_answers", "Answers given", ["method", "fallback"])
LATENCY = Histogram("headrace_answer_seconds", "Time to answer a call", ["method"])


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
