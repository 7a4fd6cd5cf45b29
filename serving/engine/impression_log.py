"""Writes impressions (the items shown) to their topic; no answer waits for the log."""

import random
import threading
import time
from collections import deque

import structlog

from flows.log.contract import Log, LogUnavailable, Message
from schemas.impressions import encode_impressions
from schemas.registry import RegistryUnavailable, SchemaRegistry
from serving.engine.metrics import IMPRESSIONS
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest

MOST_WAITING, LISTS_AT_ONCE = 4_000, 100
EVERY_S = 0.05
LISTS_IN_A_ROW, BREATH_S = 4, 0.00005
"""After so many lists the thread leaves the interpreter to the one that answers."""
STOP_S = 5.0
log = structlog.get_logger()


class Impressions:
    """A bounded queue of answers and the thread that writes them; what does not fit is dropped and counted."""

    def __init__(self, log: Log, registry: SchemaRegistry, share: float) -> None:
        """`share` of the answers are written."""
        self._log, self._registry, self._share = log, registry, share
        self._waiting: deque[tuple[RecommendRequest, Answer, int]] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        if share > 0:
            self._thread.start()

    def note(self, request: RecommendRequest, answer: Answer) -> None:
        """Take note of what an answer shows; returns at once."""
        if self._share <= 0 or (self._share < 1 and random.random() >= self._share):
            return
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append((request, answer, time.time_ns() // 1_000_000))
        else:
            IMPRESSIONS.labels("dropped").inc(len(answer.items))

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        if self._share > 0:
            self._ending.set()
            self._thread.join(STOP_S)

    def _run(self) -> None:
        # To be woken for every answer would cost the one that answers more than this: both then want the interpreter.
        while not self._ending.wait(EVERY_S) or self._waiting:
            while self._waiting:
                self._write_some()

    def _write_some(self) -> None:
        lists = [self._waiting.popleft() for _ in range(min(LISTS_AT_ONCE, len(self._waiting)))]
        try:
            schema_id = self._registry.id_for("impressions")
            messages: list[Message] = []
            for i, shown in enumerate(lists, 1):
                messages += _messages(schema_id, *shown)
                if i % LISTS_IN_A_ROW == 0:
                    time.sleep(BREATH_S)
            self._log.append(messages)
            IMPRESSIONS.labels("written").inc(len(messages))
        except Exception as error:  # whatever it is, those that come after are to be written
            n = sum(len(answer.items) for _, answer, _ in lists)
            IMPRESSIONS.labels("dropped").inc(n)
            expected = isinstance(error, LogUnavailable | RegistryUnavailable)
            log.warning("impressions dropped", n=n, error=str(error), exc_info=None if expected else error)


def _messages(schema_id: int, request: RecommendRequest, answer: Answer, ts_ms: int) -> list[Message]:
    arms = {} if request.experiments else answer.experiments  # a chosen arm is a trial, and not counted
    shared = {
        "ts_ms": ts_ms, "request_id": answer.request_id, "user": request.user, "session": request.session,
        "arm": ",".join(f"{experiment}:{name}" for experiment, name in arms.items()) or None,
        "anchor": answer.anchor, "generation": answer.generation,
    }  # fmt: skip
    key = (request.user or request.session or answer.request_id).encode()
    values = encode_impressions(schema_id, shared, answer.items.sources())
    return [Message("impressions", key, value, ts_ms) for value in values]
