"""What was shown goes to the impressions topic, without an answer ever waiting for the log."""

import queue
import random
import threading
import time

import structlog
from prometheus_client import Counter

from flows.log import Log, LogUnavailable, Message
from schemas.encode import encode
from schemas.registry import RegistryUnavailable, SchemaRegistry
from serving.requests import Answer, RecommendRequest

MOST_WAITING = 2_000
MOST_AT_ONCE = 200
STOP_S = 5.0
IMPRESSIONS = Counter("headrace_impressions", "Exposures by what became of them", ["outcome"])
log = structlog.get_logger()

Shown = tuple[RecommendRequest, Answer, int]


class Impressions:
    """A bounded queue of answers and the thread that writes them; what does not fit is dropped and counted."""

    def __init__(self, log: Log, registry: SchemaRegistry, share: float) -> None:
        """`share` of the answers are written."""
        self._log, self._registry, self._share = log, registry, share
        self._waiting: queue.Queue[Shown | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        if share > 0:
            self._thread.start()

    def note(self, request: RecommendRequest, answer: Answer) -> None:
        """Take note of what an answer shows; returns at once."""
        if self._share <= 0 or (self._share < 1 and random.random() >= self._share):
            return
        try:
            self._waiting.put_nowait((request, answer, time.time_ns() // 1_000_000))
        except queue.Full:
            IMPRESSIONS.labels("dropped").inc(len(answer.items))

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        if self._share > 0:
            try:
                self._waiting.put(None, timeout=STOP_S)
            except queue.Full:
                return
            self._thread.join(STOP_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._waiting.get()]
            while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get())
            ended = None in batch
            messages = [message for shown in batch if shown is not None for message in self._messages(shown)]
            if not messages:
                continue
            try:
                self._log.append(messages)
                IMPRESSIONS.labels("written").inc(len(messages))
            except (LogUnavailable, RegistryUnavailable) as error:
                IMPRESSIONS.labels("dropped").inc(len(messages))
                log.warning("impressions dropped", n=len(messages), error=str(error))

    def _messages(self, shown: Shown) -> list[Message]:
        request, answer, ts_ms = shown
        arms = {} if request.experiments else answer.experiments  # a chosen arm is a trial, and not counted
        arm = ",".join(f"{experiment}:{name}" for experiment, name in arms.items()) or None
        found = []
        for position, one in enumerate(answer.items, 1):
            record = {
                "event_id": f"{answer.request_id}-{position}", "ts_ms": ts_ms, "request_id": answer.request_id,
                "user": request.user, "session": request.session, "item": one.item, "position": position,
                "source": one.source, "arm": arm, "anchor": answer.anchor, "generation": answer.generation,
            }  # fmt: skip
            key = (request.user or request.session or answer.request_id).encode()
            found.append(Message("impressions", key, encode("impressions", record, self._registry), ts_ms))
        return found
