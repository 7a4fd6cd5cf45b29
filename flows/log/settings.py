"""Settings of programs that read or write the log: plain values, which `headrace.settings` reads."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from state import bounds


class LogSettings(BaseModel):
    """Settings: the address of the log and of its schemas, and which messages are refused."""

    model_config = ConfigDict(frozen=True)

    log_url: str = Field("", description="kafka:HOST:PORT or sqlite:PATH; empty: the embedded log in data_dir")
    kafka_config: dict[str, str] = Field({}, description="Further settings of Kafka's client (librdkafka names)")
    kafka_partitions: int = Field(4, ge=1, description="Partitions of topics that `headrace topics` creates")
    kafka_replication: int = Field(1, ge=1, description="Replicas of topics that `headrace topics` creates")
    kafka_retention_ms: int = Field(
        -1,
        ge=-1,
        description="How long topics that `headrace topics` creates keep a message (event time); -1: ever",
    )
    log_timeout_s: float = Field(3, ge=0.1, description="How long a server waits for Kafka to confirm events")
    schema_registry_url: str = Field(
        "", description="A Confluent-compatible registry, with user and password if need be; empty: the schema folder"
    )
    schema_registry_config: dict[str, str] = Field(
        {}, description="Further settings of the registry's client (Confluent's names, e.g. ssl.ca.location)"
    )
    schema_registry_timeout_s: float = Field(2, gt=0, description="How long one answer of the registry is waited for")
    max_message_bytes: int = Field(1 << 20, ge=100, description="A larger message is refused")
    max_future_s: float = Field(
        3600, ge=0, le=bounds.YEAR_S, description="An event further ahead of the clock is refused"
    )

    @field_validator("log_url")
    @classmethod
    def _is_a_log(cls, url: str) -> str:
        scheme, _, rest = url.partition(":")
        if url and (scheme not in ("kafka", "sqlite") or not rest):
            raise ValueError("is neither kafka:HOST:PORT nor sqlite:PATH")
        return url
