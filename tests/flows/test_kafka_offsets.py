"""What Kafka's answers to a question for offsets lead to."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from flows.log.contract import LogUnavailable
from flows.log.kafka_log import KafkaLog
from flows.log.kafka_topics import MOVING


class Broker:
    """Answers with one error after the other, then with an offset."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def list_offsets(self, asked, request_timeout, isolation_level):
        error = self.errors.pop(0) if self.errors else None
        found = {}
        for part in asked:
            found[part] = Future()
            if error is None:
                found[part].set_result(SimpleNamespace(offset=7))
            else:
                found[part].set_exception(KafkaException(KafkaError(error)))
        return found


def log_of(broker, monkeypatch):
    log = KafkaLog("localhost:1")
    monkeypatch.setattr(log, "_admin", broker)
    monkeypatch.setattr(log, "_list_streams", lambda: ("purchases:0",))
    return log


@pytest.mark.parametrize("ask", [KafkaLog.start, KafkaLog.end, lambda log: log.offsets_at(5)])
def test_a_partition_that_brokers_do_not_all_know_yet_is_asked_again(ask, monkeypatch):
    broker = Broker(*MOVING)
    assert ask(log_of(broker, monkeypatch)) == {"purchases:0": 7}
    assert not broker.errors


def test_a_partition_that_cannot_be_asked_for_a_time_is_never_taken_for_one_with_nothing_after_it(monkeypatch):
    log = log_of(Broker(), monkeypatch)
    monkeypatch.setattr(log, "end", lambda: {"purchases:0": 9})
    monkeypatch.setattr(log, "_admin", Broker(KafkaError.KAFKA_STORAGE_ERROR))
    with pytest.raises(LogUnavailable, match="cannot say its offsets"):
        log.offsets_at(5)


def test_any_other_error_is_told_at_once(monkeypatch):
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(LogUnavailable, match="cannot say its offsets"):
        log_of(broker, monkeypatch).end()
    assert len(broker.errors) == 1
