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
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from flows.log.contract import MOST_BYTES, LogUnavailable, Message, PositionLost, RawBatch, TopicReplaced, topic_of
from flows.log.kafka_producer import KafkaProducer
from flows.log.partition_merge import MAX_HELD, Merged, TimeMerge
from schemas.events import DEAD_LETTERS, TOPICS
from state.store.contract import Positions

TIMEOUT_S = 10.0
REFRESH_S = 5.0
LONGEST_HOLD_S = 2.0
LEAST_FETCHED = 1000
MOVING = (  # what brokers answer of a partition while not all of them have heard of it or of its leader
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""The id of every topic on brokers that give none (before 2.8)."""
PRODUCERS_OWN = "delivery.timeout.ms"
ISOLATION = {
    "read_committed": IsolationLevel.READ_COMMITTED,
    "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
}
COMPACTED = {"cleanup.policy": "compact", "delete.retention.ms": str(30 * 86_400_000)}
"""Of a product only the last message counts. A flow that is up to a month behind still reads that an item is gone."""
KEPT = ("erasures", DEAD_LETTERS)
"""Topics that are never cut: a replay has to know who was erased."""
LOST = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


def _split(stream: str) -> tuple[str, int]:
    topic, _, partition = stream.rpartition(":")
    return topic, int(partition)


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


def _passes(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in MOVING


class KafkaLog:
    """Streams `topic:partition` of a Kafka cluster. New partitions are noticed within seconds."""

    def __init__(
        self, bootstrap: str, read_topics: Sequence[str] = TOPICS, config: Mapping[str, Any] | None = None
    ) -> None:
        self._topics = tuple(read_topics)
        given = dict(config or {})
        isolation = given.pop("isolation.level", "read_committed")
        if isolation not in ISOLATION:
            raise ValueError(f"isolation.level must be one of {', '.join(ISOLATION)}; got {isolation!r}")
        self._isolation = isolation
        own = {"bootstrap.servers": bootstrap, "socket.keepalive.enable": True}
        self._common = {**own, **{name: value for name, value in given.items() if name != PRODUCERS_OWN}}
        self._admin = AdminClient(self._common)
        self._producer = KafkaProducer({**own, **given})
        self._consumer: Consumer | None = None
        self._at: Positions = {}
        self._earliest: Positions = {}  # where streams began that were asked for without a position
        self._ids: dict[str, str] = {}
        self._merge = TimeMerge(())
        self._held_bytes = 0
        self._ends: Positions = {}  # where the broker last said that a partition ends
        self._paused: set[str] = set()
        self._at_end: set[str] = set()
        self._gave_at = 0.0
        self._streams: tuple[str, ...] = ()
        self._refreshed = 0.0

    def create_topics(self, partitions: int = 1, replication: int = 1, retention_ms: int = -1) -> None:
        """Create the topics of the product that are missing.

        Messages carry event time, by which Kafka ages them: with a retention, loading
        a shop's past deletes what it just wrote. -1 keeps everything. `products` is
        compacted instead, and erasures are kept.
        """
        there = set(self._metadata().topics)
        missing = [name for name in (*TOPICS, DEAD_LETTERS) if name not in there]
        config = {name: {"retention.ms": str(-1 if name in KEPT else retention_ms)} for name in missing}
        config |= {name: COMPACTED for name in missing if name == "products"}
        topics = [NewTopic(name, partitions, replication, config=config[name]) for name in missing]
        for future in (self._admin.create_topics(topics) if topics else {}).values():  # it refuses an empty list
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise LogUnavailable(f"topics cannot be created: {error}") from error

    def delete_topics(self) -> None:
        """Delete the topics of the product with all that is in them, and wait until they are gone."""
        names = [*TOPICS, DEAD_LETTERS]
        for future in self._admin.delete_topics(names).values():
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise LogUnavailable(f"topics cannot be deleted: {error}") from error
        deadline = time.monotonic() + TIMEOUT_S
        while set(names) & set(self._metadata().topics) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._ids = {}

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
        """Say whether a stream of which nothing is held ends behind its position: no message lies between."""
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
            held, part = self._merge.n_held(stream), [TopicPartition(*_split(stream))]
            if held > most and stream not in self._paused:
                self._consumer.pause(part)
                self._paused.add(stream)
            elif stream in self._paused and held < most // 4:
                self._consumer.resume(part)
                self._paused.discard(stream)

    def start(self) -> Positions:
        """Return the first offset that is still there, by stream. Raises LogUnavailable."""
        return self._offsets(self._list_streams(), OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def end(self) -> Positions:
        """Return, by stream, the offset up to which it can be read: before the first transaction that is still open."""
        return self._offsets(self._list_streams(), OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def topic_ids(self) -> dict[str, str]:
        """Return the broker's id of every topic. Raises LogUnavailable."""
        return {name: found for name, (found, _) in self._describe().items() if found != NO_ID}

    def offsets_at(self, ts_ms: int) -> Positions:
        """Return, by stream, the first offset whose message time is at or after `ts_ms`; the end where none is."""
        end = self.end()
        # Not by the consumer's offsets_for_times: a partition that cannot be asked looks there like one with none.
        at = self._offsets(tuple(end), OffsetSpec.for_timestamp(max(ts_ms, 0)))  # type: ignore[no-untyped-call]
        return {stream: at[stream] if at[stream] >= 0 else last for stream, last in end.items()}

    def tell(self, positions: Positions) -> None:
        """Commit the positions to the broker in the background; a broker that is away misses one."""
        offsets = [TopicPartition(*_split(stream), offset) for stream, offset in positions.items()]
        if offsets:
            with contextlib.suppress(KafkaException):
                self._reading().commit(offsets=offsets, asynchronous=True)

    def retain(self, from_ts_ms: int) -> int:
        """Delete the records before the first one at or after `from_ts_ms`, by partition; return how many went."""
        start, upto = self.start(), self.offsets_at(from_ts_ms)
        parts = [TopicPartition(*_split(stream), offset) for stream, offset in upto.items() if offset > start[stream]]
        for future in (self._admin.delete_records(parts) if parts else {}).values():
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                raise LogUnavailable(f"records cannot be deleted: {error}") from error
        return sum(upto[stream] - start[stream] for stream in start)

    def close(self) -> None:
        """Send what is buffered and close consumer and producer."""
        if self._consumer is not None:
            self._consumer.close()
        self._producer.close()

    def _metadata(self) -> Any:
        try:
            return self._admin.list_topics(timeout=TIMEOUT_S)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka at {self._common['bootstrap.servers']} does not answer: {error}") from error

    def _describe(self) -> dict[str, tuple[str, int]]:
        """Return the id and the number of partitions of each topic that is read."""
        found = {}
        try:
            topics = self._admin.describe_topics(TopicCollection(list(self._topics)), request_timeout=TIMEOUT_S)
            for name, future in topics.items():
                one = future.result()
                found[name] = str(one.topic_id), len(one.partitions)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise LogUnavailable(f"topic {name!r} does not exist; `headrace topics` creates all of them") from error
            raise LogUnavailable(f"Kafka at {self._common['bootstrap.servers']} does not answer: {error}") from error
        for name, (topic_id, _) in found.items():
            self._ids.setdefault(name, topic_id)
        return found

    def _list_streams(self) -> tuple[str, ...]:
        return self._streams_of(self._describe())

    def _streams_of(self, topics: Mapping[str, tuple[str, int]]) -> tuple[str, ...]:
        return tuple(f"{name}:{part}" for name in self._topics for part in range(topics[name][1]))

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
        self._reading().assign([TopicPartition(*_split(stream), position) for stream, position in at.items()])
        self._at, self._earliest = at, {stream: at[stream] for stream in streams if stream not in positions}

    def _list_same(self, positions: Positions) -> tuple[str, ...]:
        """Return the streams. Raises TopicReplaced where positions are of a topic that has gone."""
        topics = self._describe()
        for name, (topic_id, _) in topics.items():
            if topic_id != self._ids[name]:
                if any(at > 0 for stream, at in positions.items() if topic_of(stream) == name):
                    raise TopicReplaced(name, "it was deleted and made again")
                self._ids[name] = topic_id
        return self._streams_of(topics)

    def _held_from(self, streams: Sequence[str], positions: Positions) -> Positions:
        """Return the earliest offsets. Raises PositionLost where a position lies before them or past the end."""
        earliest = self._offsets(streams, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        end = self._offsets(streams, newest, IsolationLevel.READ_UNCOMMITTED)
        for stream in streams:
            position = positions.get(stream, earliest[stream])
            if position < earliest[stream]:
                raise PositionLost(stream, position, earliest[stream])
            if position > end[stream]:
                raise TopicReplaced(stream, f"it ends at {end[stream]}, before position {position}")
        return earliest

    def _offsets(self, streams: Sequence[str], spec: OffsetSpec, isolation: IsolationLevel | None = None) -> Positions:
        """Return one offset for every stream, all of them asked for at once.

        A partition whose topic was just made or whose broker went away cannot be asked for a moment: it is asked again.
        """
        asked = {TopicPartition(*_split(stream)): spec for stream in streams}
        level = isolation or ISOLATION[self._isolation]

        def ask() -> Positions:
            found = self._admin.list_offsets(asked, request_timeout=TIMEOUT_S, isolation_level=level)
            return {f"{part.topic}:{part.partition}": future.result().offset for part, future in found.items()}

        again = retry_if_exception(_passes)
        try:
            return Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.1), retry=again, reraise=True)(ask)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka cannot say its offsets: {error}") from error

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
