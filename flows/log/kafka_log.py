"""The log in Apache Kafka, through confluent-kafka.

One consumer is assigned every partition at the positions it is given; it never
reads positions from the broker and never jumps (`auto.offset.reset=error`). Offsets
that hold no message (marks of transactions, what an aborted one or compaction left)
are passed when the broker says that a partition ends behind them.
"""

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from flows.log.contract import MOST_BYTES, LogUnavailable, Message, RawBatch
from flows.log.kafka_producer import KafkaProducer
from flows.log.kafka_topics import ISOLATION, NO_ID, KafkaTopics, split_stream
from flows.log.partition_merge import MAX_HELD, Merged, TimeMerge
from schemas.events import TOPICS
from state.store.contract import Positions

REFRESH_S = 5.0
LONGEST_HOLD_S = 2.0
LEAST_FETCHED = 1000
PRODUCERS_OWN = "delivery.timeout.ms"
LOST = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


def _code(message: KafkaMessage) -> int | None:
    error = message.error()
    return None if error is None else error.code()


def _original(message: KafkaMessage) -> Message:
    try:
        found: Any = message.headers() or ()  # pairs; the stubs say more kinds
    except UnicodeDecodeError:  # a name that is no text
        found = ()
    headers = tuple((name, value) for name, value in found)
    return Message(str(message.topic()), message.key(), message.value(), message.timestamp()[1], headers)  # type: ignore[arg-type]


class KafkaLog(KafkaTopics):
    """Streams `topic:partition` of a Kafka cluster. New partitions are noticed within seconds."""

    def __init__(
        self, bootstrap: str, read_topics: Sequence[str] = TOPICS, config: Mapping[str, Any] | None = None
    ) -> None:
        given = dict(config or {})
        isolation = given.pop("isolation.level", "read_committed")
        if isolation not in ISOLATION:
            raise ValueError(f"isolation.level must be one of {', '.join(ISOLATION)}; got {isolation!r}")
        own = {"bootstrap.servers": bootstrap, "socket.keepalive.enable": True}
        common = {name: value for name, value in given.items() if name != PRODUCERS_OWN}
        super().__init__({**own, **common}, read_topics, isolation)
        self._producer = KafkaProducer({**own, **given})
        self._consumer: Consumer | None = None
        self._at: Positions = {}
        self._earliest: Positions = {}  # where streams began that were asked for without a position
        self._merge = TimeMerge(())
        self._held_bytes = 0
        self._ends: Positions = {}  # where the broker last said that a partition ends
        self._paused: set[str] = set()
        self._at_end: set[str] = set()
        self._gave_at = 0.0
        self._streams: tuple[str, ...] = ()
        self._refreshed = 0.0

    def append(self, messages: Sequence[Message]) -> None:
        """Produce the messages and wait until all in-sync replicas have them. Raises MessageRefused, LogUnavailable."""
        self._producer.append(messages)

    def append_whole(self, messages: Sequence[Message]) -> None:
        """Produce the messages in a transaction, so that readers see all of them or none.

        Raises MessageRefused, LogUnavailable, NotConfirmed.
        """
        self._producer.append_whole(messages)

    def read(self, positions: Positions, max_messages: int, timeout_s: float) -> RawBatch | None:
        """Return what lies at `positions`, in the order the broker gave it."""
        self._follow(positions)
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            wait = max(left, 0.0) if not len(self._merge) else min(max(left, 0.0), 0.005)
            while True:
                held = len(self._merge)
                for message in self._fetch(max_messages, wait):
                    self._raise_for(message, positions)
                # What librdkafka has fetched is less than a large batch; more comes while this is taken over.
                if len(self._merge) - held < LEAST_FETCHED or len(self._merge) >= max_messages:
                    break
                if self._held_bytes > MOST_BYTES:
                    break
                wait = 0.0
            if not len(self._merge):
                self._gave_at = time.monotonic()
            merged = self._merge.take(self._more_to_come(), max_messages)
            if merged.offset:
                self._gave_at = time.monotonic()
                return self._batch(merged)
            if left <= 0:
                return self._batch(merged) if self._passed() else None

    def _passed(self) -> bool:
        """Return whether a stream of which nothing is held ends behind its position: no message lies between."""
        return any(end > self._at[stream] and not self._merge.n_held(stream) for stream, end in self._ends.items())

    def _fetch(self, max_messages: int, timeout_s: float) -> list[KafkaMessage]:
        """Hold what the broker has, about as many as make a batch with those held; return the errors among them."""
        assert self._consumer is not None
        try:
            # librdkafka waits for all `num_messages`, so the first one is waited for alone.
            found = self._consumer.consume(1, timeout_s)
            found += self._consumer.consume(max(max_messages - len(self._merge) - 1, LEAST_FETCHED), 0) if found else []
            # By map, which calls a method without a turn of the interpreter: there are seven calls a message.
            failed = [message.error() is not None for message in found]
            places = list(zip(map(KafkaMessage.topic, found), map(KafkaMessage.partition, found), failed, strict=True))
            first = 0
            for (topic, partition, bad), group in groupby(places):
                end = first + len(list(group))
                stream, messages, first = f"{topic}:{partition}", found[first:end], end
                if not bad:
                    self._at_end.discard(stream)
                    values = list(map(KafkaMessage.value, messages))
                    self._held_bytes += sum(map(len, filter(None, values)))
                    self._merge.add(
                        stream, list(map(KafkaMessage.offset, messages)),  # type: ignore[arg-type]
                        [ts_ms for _, ts_ms in map(KafkaMessage.timestamp, messages)],
                        values, messages,
                    )  # fmt: skip
                else:
                    for message in messages:
                        if _code(message) == KafkaError._PARTITION_EOF:
                            self._at_end.add(stream)
                            self._ends[stream] = int(message.offset() or 0)
            most = max(MAX_HELD, 2 * max_messages)
            if self._held_bytes > 4 * MOST_BYTES:  # then those wait that hold more than others
                most = max(min(most, len(self._merge) // len(self._streams)), 4)
            self._pause_those_ahead(most)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka cannot be read: {error}") from error
        return [message for message, bad in zip(found, failed, strict=True) if bad]

    def _more_to_come(self) -> set[str]:
        """Return the streams whose end was not reached yet; none when they kept the others waiting for too long."""
        more = set(self._streams) - self._at_end
        if more and len(self._merge) and time.monotonic() - self._gave_at > LONGEST_HOLD_S:
            return set()  # a partition without a leader, say
        return more

    def _pause_those_ahead(self, most: int) -> None:
        assert self._consumer is not None
        for stream in self._streams:
            held, part = self._merge.n_held(stream), [TopicPartition(*split_stream(stream))]
            if held > most and stream not in self._paused:
                self._consumer.pause(part)
                self._paused.add(stream)
            elif stream in self._paused and held < most // 4:
                self._consumer.resume(part)
                self._paused.discard(stream)

    def report(self, positions: Positions) -> None:
        """Commit the positions to the broker in the background; a broker that is away misses one."""
        offsets = [TopicPartition(*split_stream(stream), offset) for stream, offset in positions.items()]
        if offsets:
            with contextlib.suppress(KafkaException):
                self._reading().commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Send what is buffered and close consumer and producer."""
        if self._consumer is not None:
            self._consumer.close()
        self._producer.close()

    def _reading(self) -> Consumer:
        if self._consumer is None:
            own = {
                "group.id": "headrace",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": self._isolation,
                "fetch.wait.max.ms": 20,
                "queued.min.messages": 100_000,
                "fetch.queue.backoff.ms": 5,  # the default waits a second when the queue was full
            }
            self._consumer = Consumer({**self._common, "client.id": f"headrace-{uuid.uuid4().hex[:8]}", **own})
        return self._consumer

    def _follow(self, positions: Positions) -> None:
        """Make the consumer stand at `positions`, on every partition there is."""
        due = not self._streams or time.monotonic() - self._refreshed > REFRESH_S
        streams = self._list_same(positions) if due else self._streams
        if due:
            self._refreshed = time.monotonic()
        # A stream without a position is asked for from its beginning, however far it was read since.
        stands = all(self._at.get(s) == positions.get(s, self._earliest.get(s)) for s in streams)
        if self._at and streams == self._streams and stands:
            return
        self._streams, self._at = streams, {}
        self._merge, self._paused, self._at_end = TimeMerge(streams), set(), set()
        self._held_bytes, self._ends = 0, {}
        self._gave_at = time.monotonic()
        earliest = self._held_from(streams, positions)
        at = {stream: positions.get(stream, earliest[stream]) for stream in streams}
        self._reading().assign([TopicPartition(*split_stream(stream), position) for stream, position in at.items()])
        self._at, self._earliest = at, {stream: at[stream] for stream in streams if stream not in positions}

    def _raise_for(self, message: KafkaMessage, positions: Positions) -> None:
        error = message.error()
        assert error is not None
        if error.code() in LOST:
            self._at = {}
            self._held_from(self._list_same(positions), positions)
        if error.code() != KafkaError._PARTITION_EOF and error.fatal():
            raise LogUnavailable(f"Kafka reports: {error.str()}")

    def _batch(self, merged: Merged) -> RawBatch:
        values = [value or b"" for value in merged.value]
        bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(list(map(len, values)), dtype=np.int64)))
        payload = np.frombuffer(b"".join(values), np.uint8)
        stream, offset = np.array(merged.stream, np.int32), np.array(merged.offset, np.int64)
        tombstones = {i: merged.source[i].key() or b"" for i, value in enumerate(merged.value) if value is None}
        before = dict(self._at)
        for index in np.unique(stream).tolist():
            self._at[self._streams[index]] = int(offset[stream == index][-1]) + 1
        for name, end in self._ends.items():
            if not self._merge.n_held(name):
                self._at[name] = max(self._at[name], end)
        self._held_bytes -= len(payload)
        return RawBatch(
            self._streams, stream, offset, payload, bounds, before, dict(self._at), tombstones,
            topic_ids={name: found for name, found in self._ids.items() if found != NO_ID},
            original=lambda i: _original(merged.source[i]),
        )  # fmt: skip
