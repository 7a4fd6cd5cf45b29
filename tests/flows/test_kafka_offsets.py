"""What Kafka's answers to a question for offsets lead to."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from flows.kafka_log import KafkaLog
from flows.log import LogUnavailable


class Broker:
    """Answers with one error after the other, then with an offset."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def list_offsets(self, asked, request_timeout):
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


def test_a_partition_that_has_no_leader_yet_is_asked_again(monkeypatch):
    broker = Broker(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert log_of(broker, monkeypatch).end() == {"purchases:0": 7}
    assert not broker.errors


def test_any_other_error_is_told_at_once(monkeypatch):
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(LogUnavailable, match="cannot say its offsets"):
        log_of(broker, monkeypatch).end()
    assert len(broker.errors) == 1
