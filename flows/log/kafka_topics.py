"""Creates, describes and truncates topics of a Kafka cluster, and reads their offsets."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from flows.log.contract import LogUnavailable, PositionLost, TopicReplaced, topic_of
from schemas.events import BOOKS, DEAD_LETTERS, TOPICS
from state.store.contract import Positions

TIMEOUT_S = 10.0
MOVING = (  # what brokers answer while not all of them know a partition or its leader
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""The id of every topic on brokers that give none (before 2.8)."""
ISOLATION = {
    "read_committed": IsolationLevel.READ_COMMITTED,
    "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
}
COMPACTED_TOPICS = ("products",)
COMPACTED = {"cleanup.policy": "compact", "delete.retention.ms": str(30 * 86_400_000)}
"""Of a product only the last message counts. A flow that is up to a month behind still reads that an item is gone."""
KEPT = ("erasures", "product-updates", DEAD_LETTERS, BOOKS)
"""Topics that are never cut: a replay has to know who was erased and every field that a product was given, and a Redis
that is new which rules there were."""


def split_stream(stream: str) -> tuple[str, int]:
    """Return topic and partition of a stream.

    >>> split_stream("product-views:3")
    ('product-views', 3)
    """
    topic, _, partition = stream.rpartition(":")
    return topic, int(partition)


def _passes(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in MOVING


class KafkaTopics:
    """Topics of a cluster through its admin client. Each call sees new partitions."""

    def __init__(self, client: Mapping[str, Any], topics: Sequence[str], isolation: str) -> None:
        """`client`: settings of librdkafka; `topics`: those it reads; `isolation`: a key of ISOLATION."""
        self._common, self._topics, self._isolation = dict(client), tuple(topics), isolation
        self._admin = AdminClient(self._common)
        self._ids: dict[str, str] = {}

    def create_topics(self, partitions: int = 1, replication: int = 1, retention_ms: int = -1) -> None:
        """Create the topics of the product that are missing.

        Messages carry event time, by which Kafka ages them: with a retention, loading
        a shop's past deletes what it just wrote. -1 keeps everything. `products` is
        compacted instead; erasures, updates of products and books of rules are kept.
        """
        there = set(self._metadata().topics)
        missing = [name for name in (*TOPICS, DEAD_LETTERS, BOOKS) if name not in there]
        config = {name: {"retention.ms": str(-1 if name in KEPT else retention_ms)} for name in missing}
        config |= {name: COMPACTED for name in missing if name in COMPACTED_TOPICS}
        n_parts = {**dict.fromkeys(missing, partitions), BOOKS: 1}  # books have one order
        topics = [NewTopic(name, n_parts[name], replication, config=config[name]) for name in missing]
        for future in (self._admin.create_topics(topics) if topics else {}).values():  # it refuses an empty list
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise LogUnavailable(f"topics cannot be created: {error}") from error

    def delete_topics(self) -> None:
        """Delete the topics of the product with all that is in them, and wait until they are gone."""
        names = [*TOPICS, DEAD_LETTERS, BOOKS]
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

    def retain(self, from_ts_ms: int) -> int:
        """Delete the records before the first one at or after `from_ts_ms`, by partition; return how many went.

        Those of a compacted topic stay: a broker deletes none of them.
        """
        start = {stream: at for stream, at in self.start().items() if split_stream(stream)[0] not in COMPACTED_TOPICS}
        upto = self.offsets_at(from_ts_ms)
        parts = [
            TopicPartition(*split_stream(stream), offset)
            for stream, offset in upto.items()
            if offset > start.get(stream, offset)
        ]
        for future in (self._admin.delete_records(parts) if parts else {}).values():
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                raise LogUnavailable(f"records cannot be deleted: {error}") from error
        return sum(upto[stream] - start[stream] for stream in start)

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
        """Return one offset for every stream, all in one request.

        A partition whose topic was just made or whose broker went away fails for a moment, so the request is repeated.
        """
        asked = {TopicPartition(*split_stream(stream)): spec for stream in streams}
        level = isolation or ISOLATION[self._isolation]

        def ask() -> Positions:
            found = self._admin.list_offsets(asked, request_timeout=TIMEOUT_S, isolation_level=level)
            return {f"{part.topic}:{part.partition}": future.result().offset for part, future in found.items()}

        again = retry_if_exception(_passes)
        try:
            return Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.1), retry=again, reraise=True)(ask)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka cannot say its offsets: {error}") from error
