"""Events go onto the log in chunks, with a progress bar."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from flows.log.contract import Log, Message
from headrace.console import err, progress_bar
from schemas.json_events import InvalidEvent, encode, event_from_json
from schemas.registry import SchemaRegistry

CHUNK = 2_000


def message_of(event: dict[str, Any], registry: SchemaRegistry, now_ms: int, max_future_ms: int | None) -> Message:
    """Return the message of an event. Raises InvalidEvent."""
    topic, record, key = event_from_json(event, now_ms, max_future_ms)
    return Message(topic, key, encode(topic, record, registry), event.get("ts_ms", now_ms))


def append_all(
    log: Log, events: Iterable[dict[str, Any]], total: int, registry: SchemaRegistry, title: str,
    max_future_ms: int | None = None,
) -> tuple[int, Counter[str]]:  # fmt: skip
    """Append the events in chunks with a progress bar; return (loaded, refused by reason)."""
    refused: Counter[str] = Counter()
    waiting: list[Message] = []
    loaded, began, now_ms = 0, time.perf_counter(), time.time_ns() // 1_000_000
    with progress_bar("events") as bar:
        bar.disable = not err.is_terminal
        task = bar.add_task(title, total=total, rate=0.0)
        for n, event in enumerate(events, 1):
            try:
                waiting.append(message_of(event, registry, now_ms, max_future_ms))
            except InvalidEvent as error:
                refused[str(error)[:120]] += 1
            if len(waiting) >= CHUNK or n == total:
                log.append(waiting)
                loaded += len(waiting)
                waiting = []
                bar.update(task, completed=n, rate=n / (time.perf_counter() - began))
        log.append(waiting)
    return loaded + len(waiting), refused
