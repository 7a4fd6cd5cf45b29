"""Answers kept for a placement's `cache_s`, until the user acts or anything they were made of is replaced."""

from collections import OrderedDict
from typing import NamedTuple

from serving.request.answer import Answer
from serving.request.requests import RecommendRequest

MOST_KEPT = 20_000


class Made(NamedTuple):
    """Everything besides the request that an answer depends on."""

    n_events: int
    """Of the user, ever: an event of the user's own makes the answer old."""
    catalogue: int
    rules: int
    generation: str
    anchor: str | None


class AnswerCache:
    """Least recently used answers give way."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Made, Answer]] = OrderedDict()

    def get(self, request: RecommendRequest, made: Made, now_ms: float) -> Answer | None:
        """Return the answer to an equal request if it still holds."""
        key = request.model_dump_json(exclude_defaults=True)
        until_ms, of, answer = self._kept.get(key, (0.0, None, None))
        if answer is None or of != made or now_ms >= until_ms:
            return None
        self._kept.move_to_end(key)
        return answer

    def put(self, request: RecommendRequest, made: Made, until_ms: float, answer: Answer) -> None:
        """Keep an answer until a time for equal requests; where there are too many, the one used least lately goes."""
        self._kept[request.model_dump_json(exclude_defaults=True)] = (until_ms, made, answer)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
