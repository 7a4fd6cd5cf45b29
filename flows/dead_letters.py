"""Messages that could not be folded, kept with their reason in a topic of the same log."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from flows.log import Log, Message, RawBatch
from schemas.events import DEAD_LETTERS, BadMessage


class DeadLetter(NamedTuple):
    """A refused message: why, where it lay in the log, and its bytes."""

    reason: str
    detail: str
    stream: str
    offset: int
    ts_ms: int
    payload: bytes


class DeadLetters:
    """Writes refused messages to the dead-letters topic."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(self, raw: RawBatch, bad: Sequence[BadMessage], now_ms: int) -> None:
        """Append one letter for each refused message; durable when it returns.

        A crash between this and the commit of the batch writes a letter twice: both
        carry the same key `stream:offset`.
        """
        messages = []
        for one in bad:
            stream, offset = raw.streams[raw.stream[one.message]], int(raw.offset[one.message])
            body = {
                "reason": one.reason,
                "detail": one.detail,
                "stream": stream,
                "offset": offset,
                "ts_ms": now_ms,
                "payload": base64.b64encode(raw.value(one.message)).decode(),
            }
            messages.append(Message(DEAD_LETTERS, f"{stream}:{offset}".encode(), orjson.dumps(body), now_ms))
        self._log.append(messages)


def read_dead_letters(log: Log, limit: int = 1000) -> list[DeadLetter]:
    """Return the oldest `limit` letters of a log opened on the dead-letters topic, each place once."""
    found: dict[tuple[str, int], DeadLetter] = {}
    positions = log.start()
    while len(found) < limit:
        batch = log.read(positions, limit, 0.2)
        if batch is None:
            break
        for i in range(len(batch)):
            body = orjson.loads(batch.value(i))
            letter = DeadLetter(**{**body, "payload": base64.b64decode(body["payload"])})
            found.setdefault((letter.stream, letter.offset), letter)
        positions = batch.after
    return list(found.values())[:limit]
