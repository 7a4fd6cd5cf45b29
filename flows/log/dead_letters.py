"""Messages that could not be folded, kept with their reason in a topic of the same log.

A letter is JSON: why, where the message lay, its key, headers and time, and its bytes in
base64. One that the broker finds too large keeps the first bytes, the length and a hash.
A letter that was put back is followed by a marker in the same topic, so that it is put
back once, whoever asks and however often. The marker names the letter by what it is of,
topic id and message, since a topic that was made again has the same places anew.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from flows.log.contract import Headers, Log, Message, MessageRefused, MessageTooLarge, RawBatch, topic_of
from flows.log.read_to import read_to
from schemas.events import DEAD_LETTERS, BadMessage

CHUNK = 500
MOST_BYTES = 8 << 20
PATIENCE_S = 10.0
HEAD_BYTES = 16 * 1024
"""What a letter keeps of a message that is too large; of its key and of all its headers together the same."""
REDRIVEN = "redriven"


class DeadLetter(NamedTuple):
    """A refused message: why, where it lay in the log, and its bytes (None: a message without a value)."""

    reason: str
    detail: str
    stream: str
    offset: int
    ts_ms: int
    payload: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    message_ts_ms: int = 0
    length: int = 0
    sha256: str = ""
    """Of the whole message, where `payload` is only its head; else empty."""
    topic_id: str = ""
    """Of the topic where the message lay; empty where topics have none."""
    redriven_ms: int = 0
    """When it was put back; 0: it was not."""

    @property
    def place(self) -> str:
        """Where the refused message lies, as `topic:partition:offset`."""
        return f"{self.stream}:{self.offset}"

    @property
    def identity(self) -> str:
        """Its identity: equal for letters of the same message, and for no others."""
        value = self.sha256 or (hashlib.sha256(self.payload).hexdigest() if self.payload is not None else None)
        known = [self.topic_id, self.place, self.message_ts_ms, _text(self.key), value]
        return hashlib.sha256(orjson.dumps(known)).hexdigest()

    @property
    def cut(self) -> bool:
        """Whether only the head of the message is there."""
        return bool(self.sha256)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _encode(place: str, body: dict[str, Any], message: Message, ts_ms: int, cut: bool) -> Message:
    value, key, headers = message.value, message.key, message.headers
    if cut and value is not None:
        body |= {"length": len(value), "sha256": hashlib.sha256(value).hexdigest()}
        value = value[:HEAD_BYTES]
        key = key and key[:HEAD_BYTES]
        if sum(len(name) + len(data or b"") for name, data in headers) > HEAD_BYTES:
            headers = ()
    body |= {"payload": _text(value), "key": _text(key), "headers": [(name, _text(data)) for name, data in headers]}
    return Message(DEAD_LETTERS, place.encode(), orjson.dumps(body), ts_ms)


class DeadLetters:
    """Writes refused messages to the dead-letters topic."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(self, raw: RawBatch, bad: Sequence[BadMessage], now_ms: int) -> None:
        """Append one letter for each refused message; durable when it returns.

        A crash between this and the commit of the batch writes a letter twice: both
        have the same identity.
        """
        waiting: list[BadMessage] = []
        n_bytes = 0
        for one in bad:
            waiting.append(one)
            n_bytes += int(raw.bounds[one.message + 1] - raw.bounds[one.message])
            if len(waiting) == CHUNK or n_bytes > MOST_BYTES:
                self._write_some(raw, waiting, now_ms)
                waiting, n_bytes = [], 0
        if waiting:
            self._write_some(raw, waiting, now_ms)

    def _write_some(self, raw: RawBatch, bad: Sequence[BadMessage], now_ms: int) -> None:
        try:
            self._log.append([_letter(raw, one, now_ms) for one in bad])
        except MessageRefused as refused:  # the others are written
            for index in refused.indices:
                self._write_one(raw, bad[index], now_ms)

    def _write_one(self, raw: RawBatch, one: BadMessage, now_ms: int) -> None:
        try:
            self._log.append([_letter(raw, one, now_ms)])
        except MessageTooLarge:
            self._log.append([_letter(raw, one, now_ms, cut=True)])


def _letter(raw: RawBatch, one: BadMessage, now_ms: int, cut: bool = False) -> Message:
    stream, offset = raw.streams[raw.stream[one.message]], int(raw.offset[one.message])
    message = raw.message(one.message)
    body: dict[str, Any] = {
        "reason": one.reason,
        "detail": one.detail.encode(errors="replace").decode(),
        "stream": stream,
        "offset": offset,
        "ts_ms": now_ms,
        "message_ts_ms": message.ts_ms,
        "topic_id": raw.topic_ids.get(topic_of(stream), ""),
    }
    return _encode(f"{stream}:{offset}", body, message, now_ms, cut)


def _decode(body: dict[str, Any]) -> DeadLetter:
    headers = tuple((name, _bytes(data)) for name, data in body.get("headers", []))
    return DeadLetter(
        **{**body, "payload": _bytes(body["payload"]), "key": _bytes(body.get("key")), "headers": headers}
    )  # fmt: skip


def _records(log: Log) -> Iterator[dict[str, Any]]:
    """Yield all that the dead-letters topic holds by now, oldest first."""
    for batch in read_to(log, log.start(), log.end(), PATIENCE_S):
        for i in range(len(batch)):
            yield orjson.loads(batch.value(i))


def each_letter(log: Log, wanted: Callable[[DeadLetter], bool] = lambda letter: True) -> Iterator[DeadLetter]:
    """Yield the wanted letters of a log opened on the dead-letters topic, oldest first, each message's once."""
    back: dict[str, int] = {}
    for body in _records(log):
        if REDRIVEN in body:
            back[body[REDRIVEN]] = body["ts_ms"]
    seen: set[str] = set()
    for body in _records(log):
        if REDRIVEN in body:
            continue
        letter = _decode(body)
        if wanted(letter) and (identity := letter.identity) not in seen:
            seen.add(identity)
            yield letter._replace(redriven_ms=back.get(identity, 0))


def read_dead_letters(
    log: Log, limit: int = 1000, skip: int = 0, wanted: Callable[[DeadLetter], bool] = lambda letter: True
) -> list[DeadLetter]:
    """Return `limit` of the wanted letters behind the oldest `skip` of them."""
    found: list[DeadLetter] = []
    for n, letter in enumerate(each_letter(log, wanted)):
        if n >= skip + limit:
            break
        if n >= skip:
            found.append(letter)
    return found


class Redriven(NamedTuple):
    """Counts of letters that a redrive handled."""

    back: int
    before: int
    """Put back by an earlier call, and left alone."""
    cut: int
    """Only their head is there, so they cannot be put back."""
    refused: int = 0
    """The log does not take them."""


def redrive(log: Log, letters: Sequence[DeadLetter], now_ms: int) -> Redriven:
    """Put the messages of letters back onto their topics, with key and headers, each one once."""
    due = [letter for letter in letters if not letter.redriven_ms and not letter.cut]
    before = sum(1 for letter in letters if letter.redriven_ms)
    refused = 0
    for first in range(0, len(due), CHUNK):
        part = due[first : first + CHUNK]
        try:
            _put_back(log, part, now_ms)
        except MessageRefused:
            for letter in part:
                try:
                    _put_back(log, [letter], now_ms)
                except MessageRefused:
                    refused += 1
    return Redriven(len(due) - refused, before, len(letters) - len(due) - before, refused)


def _put_back(log: Log, letters: Sequence[DeadLetter], now_ms: int) -> None:
    """Append the messages and a marker for each, which the log takes whole: no crash leaves one without the other."""
    messages = [
        Message(topic_of(letter.stream), letter.key, letter.payload, now_ms, letter.headers) for letter in letters
    ]
    marks = [orjson.dumps({REDRIVEN: letter.identity, "place": letter.place, "ts_ms": now_ms}) for letter in letters]
    end = sum(log.end().values())
    log.append_whole(messages + [Message(DEAD_LETTERS, b"redriven", mark, now_ms) for mark in marks])
    # Kafka shows a transaction a moment after it was committed; a redrive begun before that would not see the markers.
    deadline = time.monotonic() + PATIENCE_S
    while sum(log.end().values()) < end + len(marks) and time.monotonic() < deadline:
        time.sleep(0.02)
