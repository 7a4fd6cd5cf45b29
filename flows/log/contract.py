"""The interface of a log; `sqlite_log` and `kafka_log` implement it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from state.store.contract import Positions

MOST_BYTES = 64 << 20
"""A batch has about this many bytes at most, however many messages were requested."""
Headers = tuple[tuple[str, bytes | None], ...]


class Message(NamedTuple):
    """One record: a Confluent-framed Avro value (None: the key is gone)."""

    topic: str
    key: bytes | None
    value: bytes | None
    ts_ms: int
    headers: Headers = ()


@dataclass(frozen=True)
class RawBatch:
    """Messages of several streams in the order they were read.

    Message i came from `streams[stream[i]]` at `offset[i]`; its value is
    `payload[bounds[i] : bounds[i + 1]]`. A message without a value has an empty
    slice and its key in `tombstones`. `before` and `after` are the positions of every
    stream around this batch (also of streams that had no message in it).
    """

    streams: tuple[str, ...]
    stream: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    payload: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.int64]
    before: Positions
    after: Positions
    tombstones: dict[int, bytes] = field(default_factory=dict)
    full: bool = False
    """Whether it has as many messages as requested, so that more may wait."""
    opening: int = 0
    """Which opening of a flow it was read in: what was read before lanes were loaded anew is read again."""
    topic_ids: dict[str, str] = field(default_factory=dict)
    """What the topics were known by, where two of the same name may have been read one after the other."""
    original: Callable[[int], Message] | None = None
    """Returns message i as it lies in the log, with its key, time and headers; None: there is only its value."""

    def __len__(self) -> int:
        return len(self.offset)

    def value(self, i: int) -> bytes:
        """Return the value of message i, empty where it has none."""
        return self.payload[self.bounds[i] : self.bounds[i + 1]].tobytes()

    def message(self, i: int) -> Message:
        """Return message i with its key, time and headers, as far as the log gave them."""
        if self.original is not None:
            return self.original(i)
        topic = self.streams[self.stream[i]].rpartition(":")[0]
        return Message(topic, self.tombstones.get(i), None if i in self.tombstones else self.value(i), 0)

    def until(self, end: Positions) -> "RawBatch":
        """Return the batch without the messages at or past `end` of their streams."""
        ends = np.array([end.get(stream, 0) for stream in self.streams], np.int64)
        keep = self.offset < ends[self.stream]
        after = {stream: min(at, max(end.get(stream, 0), self.before[stream])) for stream, at in self.after.items()}
        if keep.all():
            return replace(self, after=after)
        kept = np.flatnonzero(keep)
        parts = [self.payload[self.bounds[i] : self.bounds[i + 1]] for i in kept.tolist()]
        bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum([len(part) for part in parts], dtype=np.int64)))
        place = {old: new for new, old in enumerate(kept.tolist())}
        original = self.original
        return replace(
            self, stream=self.stream[keep], offset=self.offset[keep],
            payload=np.concatenate(parts or [self.payload[:0]]), bounds=bounds, after=after,
            tombstones={place[i]: key for i, key in self.tombstones.items() if i in place},
            original=original and (lambda i: original(int(kept[i]))),
        )  # fmt: skip


MEND = "build a generation from what is there with `headrace replay NAME`, and make it live with `headrace switch NAME`"


class PositionLost(Exception):
    """A position lies before what the log still holds."""

    def __init__(self, stream: str, position: int, earliest: int) -> None:
        super().__init__(
            f"{stream} starts at offset {earliest}, but the lane wants {position}: retention removed "
            f"{earliest - position} messages; raise the topic's retention, {MEND}"
        )
        self.stream, self.position, self.earliest = stream, position, earliest


class TopicReplaced(PositionLost):
    """Positions belong to a topic that was deleted and made again since, or cut."""

    def __init__(self, topic: str, why: str) -> None:
        Exception.__init__(self, f"{topic} is not the topic that was read before: {why}; {MEND}")


class LogUnavailable(Exception):
    """The log cannot be reached or cannot take writes (disk full, broker away)."""


class NotConfirmed(LogUnavailable):
    """It is not known whether the log has taken the messages: they may be there, or come yet."""


class MessageRefused(LogUnavailable):
    """The log does not take some of the messages, and never will: the append is not to be repeated.

    `indices` are all of those that it refused, and `index` and `why` are of the first.
    """

    def __init__(self, indices: Sequence[int], why: str) -> None:
        super().__init__(f"message {indices[0]} is refused: {why}")
        self.indices, self.index, self.why = tuple(indices), indices[0], why


class MessageTooLarge(MessageRefused):
    """A message is larger than the log takes."""


def topic_of(stream: str) -> str:
    """Return the topic of a stream.

    >>> topic_of("product-views:3")
    'product-views'
    """
    return stream.rpartition(":")[0]


class Log(Protocol):
    """An append-only record of events in streams `topic:partition`.

    A flow reads it batch after batch from one thread, a few to some hundred times a second; replays, trainings and the
    evaluation read it once. Servers append from threads of their own, once a request that brings events. Every method
    may block for as long as the log's timeouts say, and raises LogUnavailable when it cannot be reached; the same call
    may then be made again. `append` may be called from several threads at once, all else from one.
    """

    def append(self, messages: Sequence[Message]) -> None:
        """Make the messages durable, in order; return only when they are.

        Raises MessageRefused when all are there but those it names, and else LogUnavailable, and then some of them
        may be there all the same.
        """

    def append_whole(self, messages: Sequence[Message]) -> None:
        """Make all of the messages durable, or none.

        Raises MessageRefused and LogUnavailable when none is there, NotConfirmed when that is not known.
        """

    def read(self, positions: Positions, max_messages: int, timeout_s: float) -> RawBatch | None:
        """Return what lies at `positions` (a stream that is absent starts at its earliest message), MOST_BYTES of it.

        None when nothing arrived within `timeout_s`. A batch without messages says that the positions moved past what
        is no message (marks and remains of transactions). Raises PositionLost, LogUnavailable.
        """

    def start(self) -> Positions:
        """Earliest offset still held, by stream."""

    def end(self) -> Positions:
        """Offset up to which messages can be read now, by stream."""

    def topic_ids(self) -> dict[str, str]:
        """Return the ids of topics; a topic made anew under the same name has another id. Empty if the log has none."""

    def offsets_at(self, ts_ms: int) -> Positions:
        """First offset whose message time is at or after `ts_ms`, by stream; the end where there is none."""

    def report(self, positions: Positions) -> None:
        """Show the log's own tools (lag monitors) how far was read; nothing reads it back. Raises nothing."""

    def retain(self, from_ts_ms: int) -> int:
        """Drop whole batches older than `from_ts_ms`; return how many messages went."""

    def close(self) -> None:
        """Release connections and files. Nothing else may be called afterwards; no error leaves it."""
