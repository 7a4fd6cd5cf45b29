"""Messages into Kafka: each one durable by itself, or several as a whole, in a transaction.

Nobody waits for a stranger's messages: every call awaits the delivery reports of its own.
Calls that come while a transaction is under way share the next one.
"""

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from flows.log.contract import LogUnavailable, Message, MessageRefused, MessageTooLarge, NotConfirmed

TIMEOUT_S = 10.0
MOST_IN_A_TRANSACTION = 5_000
ABORT_S = 1.0
REFUSED = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
)
"""What a broker never takes, however often it is sent."""


def refusal(errors: Mapping[int, KafkaError]) -> MessageRefused:
    """Return what to raise for refused messages, by index."""
    indices = sorted(errors)
    first = errors[indices[0]]
    large = first.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
    return (MessageTooLarge if large else MessageRefused)(indices, first.str())


def is_fatal(error: KafkaError) -> bool:
    """Return whether a producer accepts nothing more after this error."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


class _Receipts:
    """The delivery reports of one call's messages."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._outcomes: dict[int, KafkaError | None] = {}  # the caller and the thread with the reports both write it
        self.done = threading.Event()

    def add(self, index: int, error: KafkaError | None, _: KafkaMessage | None = None) -> None:
        self._outcomes[index] = error
        if len(self._outcomes) == self._n:
            self.done.set()

    def raise_failures(self, whole: bool) -> None:
        """Raise what the failures mean, if there are any.

        As a `whole`, nothing is taken when one message is refused, whatever happened to the others.
        """
        failed = {index: error for index, error in self._outcomes.items() if error is not None}
        refused = {index: error for index, error in failed.items() if error.code() in REFUSED}
        if refused and (whole or len(refused) == len(failed)):
            raise refusal(refused)
        if failed:
            why = next(iter(failed.values())).str()
            raise NotConfirmed(f"Kafka did not confirm {len(failed)} messages: {why}")


def _produce(producer: Producer, messages: Sequence[Message], receipts: _Receipts, timeout_s: float) -> None:
    """Hand the messages to librdkafka; those that it refuses have their receipts at once.

    Raises LogUnavailable, KafkaException; then some may have been handed over.
    """
    deadline = time.monotonic() + timeout_s
    for index, message in enumerate(messages):
        while True:
            try:
                producer.produce(
                    message.topic, message.value, message.key, timestamp=message.ts_ms,
                    on_delivery=partial(receipts.add, index), headers=list(message.headers),
                )  # fmt: skip
                break
            except BufferError:
                if time.monotonic() > deadline:
                    raise LogUnavailable("Kafka takes messages too slowly: the producer's queue is full") from None
                producer.poll(0.05)
            except KafkaException as error:
                if error.args[0].code() not in REFUSED:
                    raise
                receipts.add(index, error.args[0])
                break


class _Single:
    """An idempotent producer, and a thread that calls back with its delivery reports."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.broken = False
        """Whether a fatal error occurred, after which it accepts nothing more."""
        self._producer = Producer({**config, "enable.idempotence": True, "linger.ms": 1, "error_cb": self._note})
        self._closing = threading.Event()
        threading.Thread(target=self._poll, name="kafka-reports", daemon=True).start()

    def append(self, messages: Sequence[Message], timeout_s: float) -> None:
        receipts = _Receipts(len(messages))
        try:
            _produce(self._producer, messages, receipts, timeout_s)
        except KafkaException as error:
            self._note(error.args[0])
            raise LogUnavailable(f"Kafka takes nothing: {error}") from error
        # Reports come within `delivery.timeout.ms`; a second more for the thread that brings them.
        if not receipts.done.wait(timeout_s + 1):
            raise NotConfirmed(f"Kafka did not confirm {len(messages)} messages: no answer in time")
        receipts.raise_failures(whole=False)

    def close(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)
        self._closing.set()

    def _note(self, error: KafkaError) -> None:
        self.broken = self.broken or is_fatal(error)

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(0.1)


class _Call:
    """Messages to be taken all or not at all, and what came of them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages, self.outcome = messages, Future[None]()


class _Transactions:
    """A transactional producer and the thread that uses it; the calls that wait go into one transaction."""

    def __init__(self, config: Mapping[str, Any], timeout_s: float) -> None:
        # The id is this process's own. A producer made anew under it ends what the one before left open.
        ms = int(timeout_s * 1000)
        self.transactional_id = f"headrace-{uuid.uuid4().hex}"
        self._config = {**config, "transactional.id": self.transactional_id, "linger.ms": 1,
                        "transaction.timeout.ms": max(ms, 5_000)}  # fmt: skip
        self._timeout_s = timeout_s
        self._producer: Producer | None = None
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kafka-transactions", daemon=True)
        self._thread.start()

    def append(self, messages: Sequence[Message]) -> None:
        call = _Call(messages)
        self._waiting.put(call)
        try:
            call.outcome.result(self._timeout_s)
        except TimeoutError:
            if call.outcome.cancel():
                raise LogUnavailable("Kafka takes transactions too slowly; nothing was sent") from None
        else:
            return
        try:  # it is under way, and each of its steps has a bound
            call.outcome.result(2 * self._timeout_s + 2 * ABORT_S)
        except TimeoutError:
            raise NotConfirmed("Kafka did not say in time what became of the transaction") from None

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            group, n = [call], len(call.messages)
            while n < MOST_IN_A_TRANSACTION:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                group.append(more)
                n += len(more.messages)
            self._settle([one for one in group if one.outcome.set_running_or_notify_cancel()])

    def _settle(self, group: Sequence[_Call]) -> None:
        """Commit what the calls bring; a call whose message is refused does not take the others with it."""
        if not group:
            return
        try:
            self._commit([message for call in group for message in call.messages])
        except MessageRefused as refused:
            if len(group) > 1:
                for call in group:
                    self._settle([call])
            else:
                group[0].outcome.set_exception(refused)
        except Exception as error:  # the thread serves all that come after
            known = error if isinstance(error, LogUnavailable) else LogUnavailable(f"Kafka takes nothing: {error}")
            for call in group:
                call.outcome.set_exception(known)
        else:
            for call in group:
                call.outcome.set_result(None)

    def _commit(self, messages: Sequence[Message]) -> None:
        receipts = _Receipts(len(messages))
        try:
            producer = self._begin()
            _produce(producer, messages, receipts, self._timeout_s)
            left = producer.flush(self._timeout_s)
            receipts.raise_failures(whole=True)
            if left:
                raise LogUnavailable(f"{left} of {len(messages)} messages did not arrive in time")
        except (KafkaException, LogUnavailable) as error:
            # Nothing was committed, and nothing will be: a transaction that nobody ends is aborted by the broker.
            self._abort()
            if isinstance(error, MessageRefused):
                raise
            raise LogUnavailable(f"Kafka took nothing: {error}") from error
        try:
            producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort()
                raise LogUnavailable(f"Kafka took nothing: {error}") from error
            self._producer = None
            raise NotConfirmed(f"Kafka did not say whether it committed: {error}") from error

    def _begin(self) -> Producer:
        """Return a producer in a new transaction; one that can no longer begin any is replaced."""
        if self._producer is not None:
            try:
                self._producer.begin_transaction()
                return self._producer
            except KafkaException:
                self._producer = None
        producer = Producer(self._config)
        producer.init_transactions(self._timeout_s)
        producer.begin_transaction()
        self._producer = producer
        return producer

    def _abort(self) -> None:
        """End the transaction; the next call makes a producer anew.

        librdkafka may purge messages of the next transaction with those of the one that was aborted.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(ABORT_S)


class KafkaProducer:
    """Appends messages, by themselves or as a whole; after a fatal error the next call has a new producer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        own = {"delivery.timeout.ms": int(TIMEOUT_S * 1000)}
        self._config: dict[str, Any] = {**own, **config}
        self._timeout_s = float(self._config["delivery.timeout.ms"]) / 1000
        self._lock = threading.Lock()
        self._single: _Single | None = None
        self._transactions: _Transactions | None = None

    def append(self, messages: Sequence[Message]) -> None:
        """Return when all in-sync replicas have the messages.

        Raises MessageRefused when all are there but those it names; LogUnavailable, NotConfirmed, and then some may
        be there all the same.
        """
        if not messages:
            return
        with self._lock:
            if self._single is not None and self._single.broken:
                self._single.close(0)
                self._single = None
            single = self._single = self._single or _Single(self._config)
        single.append(messages, self._timeout_s)

    def append_whole(self, messages: Sequence[Message]) -> None:
        """Return when all in-sync replicas have all of the messages.

        Raises MessageRefused and LogUnavailable when none is there, NotConfirmed when that is not known.
        """
        if len(messages) < 2:  # one message is whole by itself, and need not wait for a transaction
            self.append(messages)
            return
        with self._lock:
            self._transactions = self._transactions or _Transactions(self._config, self._timeout_s)
        self._transactions.append(messages)

    def close(self) -> None:
        """Send what is buffered and close the connections."""
        if self._transactions is not None:
            self._transactions.close()
        if self._single is not None:
            self._single.close(self._timeout_s)
