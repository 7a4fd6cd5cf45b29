"""How many answers were given, over all interfaces, and the time they took."""

from functools import cache

from prometheus_client import Counter, Histogram

from serving.requests import Answer

ANSWERS = Counter("headrace_answers", "Answers given", ["method", "fallback"])
LATENCY = Histogram("headrace_answer_seconds", "Time to answer", ["method"])


@cache
def _counters(method: str, fallback: str) -> tuple[Counter, Histogram]:
    return ANSWERS.labels(method, fallback), LATENCY.labels(method)


def count(method: str, answer: Answer) -> None:
    """Count an answer."""
    answers, latency = _counters(method, answer.fallback)  # looking labels up costs more than counting
    answers.inc()
    latency.observe(answer.milliseconds / 1000)
