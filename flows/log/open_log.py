"""A log by its address: `sqlite:PATH` or `kafka:HOST:PORT[,HOST:PORT…]`."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.log.contract import Log
from schemas.events import TOPICS


def open_log(url: str, read_topics: Sequence[str] = TOPICS, config: Mapping[str, Any] | None = None) -> Log:
    """Return the log at `url`; `config` is passed on to Kafka's client. Raises LogUnavailable, ValueError."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        from flows.log.sqlite_log import SqliteLog

        return SqliteLog(rest, read_topics)
    if scheme == "kafka" and rest:
        from flows.log.kafka_log import KafkaLog

        return KafkaLog(rest, read_topics, config)
    raise ValueError(f"log address {url!r} is neither sqlite:PATH nor kafka:HOST:PORT")
