"""`headrace topics`: create the Kafka topics that are missing."""

import typer

from flows.log.contract import LogUnavailable
from flows.log.kafka_log import KafkaLog
from flows.log.open_log import open_log
from headrace.console import OK, UNAVAILABLE, err, read_settings
from headrace.settings import Settings


def run(settings: Settings) -> int:
    """Create the topics; the embedded log has its own from the start."""
    try:
        log = open_log(settings.log_address, config=settings.kafka_config)
        if isinstance(log, KafkaLog):
            log.create_topics(settings.kafka_partitions, settings.kafka_replication, settings.kafka_retention_ms)
        log.close()
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    err.print(f"all topics are there: {settings.log_address}")
    return OK


def command() -> None:
    """Create the Kafka topics that are missing."""
    raise typer.Exit(run(read_settings()))
