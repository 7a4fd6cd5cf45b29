"""Every setting of the product: one frozen object, read once at the start of a program.

Values come from `HEADRACE_…` environment variables, then from a TOML file
(`HEADRACE_CONFIG`, else `headrace.toml` in the working folder), then from the
defaults below.
"""

import difflib
import os
import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from state.bounds import LONGEST_GAP_S, MAX_HALF_LIFE_S, MAX_WEIGHT, MIN_HALF_LIFE_S, YEAR_S
from state.secrets import shown

PREFIX = "HEADRACE_"
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis-cluster", "rediss-cluster")
CONFIG = "HEADRACE_CONFIG"
DEFAULT_FILE = "headrace.toml"
OTHER_VARIABLES = {CONFIG, "HEADRACE_TEST_CACHE"}
FORMER = {"require_key": "keys are needed as soon as there are some, unless allow_anonymous is set"}
"""Settings that are gone, and what holds instead."""


class BadSettings(Exception):
    """A setting that cannot be; the message names it."""


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, seen from itself; "" is every address of it, and so is not."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _file() -> Path:
    return Path(os.environ.get(CONFIG, DEFAULT_FILE))


def _file_values() -> dict[str, Any]:
    path = _file()
    if not path.exists():
        if CONFIG in os.environ:
            raise BadSettings(f"{CONFIG} names {path}, which does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{path} is not TOML: {error}") from None


class Settings(BaseSettings):
    """All settings. Times are in the unit of the name: `_s` seconds, `_ms` milliseconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Field(Path("data"), description="Folder of the embedded log, Redis data and anchors")
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
    redis_url: str = Field("", description="redis://…; empty: `headrace up` starts one of its own in data_dir")
    id_key: SecretStr = Field(
        SecretStr(""),
        description="Key that ids are hashed with, 32 hex digits, the same on all machines; empty: id.key in data_dir",
    )
    redis_eviction: Literal["refuse", "warn"] = Field(
        "refuse", description="What a flow or server does at its start with a Redis that evicts rows when it is full"
    )
    schema_registry_url: str = Field(
        "", description="A Confluent-compatible registry, with user and password if need be; empty: the schema folder"
    )
    schema_registry_config: dict[str, str] = Field(
        {}, description="Further settings of the registry's client (Confluent's names, e.g. ssl.ca.location)"
    )
    schema_registry_timeout_s: float = Field(2, gt=0, description="How long one answer of the registry is waited for")
    connect_timeout_s: float = Field(
        30,
        gt=0,
        description="How long programs wait for Redis and the log at their start, and trainings for its next part",
    )

    generation: str = Field(
        "g1", pattern=r"^[a-z0-9-]+$", description="Generation a first start makes; later the live one is folded"
    )
    n_lanes: int = Field(1, ge=1, le=1024, description="Shards of the fold; changing it needs a new generation")
    flow_name: str = Field("", description="Name of a flow process among its like; empty: a random one")
    lease_s: float = Field(3, ge=0.5, description="A flow process unseen for so long loses its lanes to the others")
    batch_max_events: int = Field(
        240_000, ge=1, description="Most messages in one batch of the flow (at most a quarter of the rows it caches)"
    )
    max_message_bytes: int = Field(1 << 20, ge=100, description="A larger message is refused")
    max_future_s: float = Field(3600, ge=0, le=YEAR_S, description="An event further ahead of the clock is refused")
    max_bad_in_a_row: int = Field(10_000, ge=1, description="So many refused messages in a row stop the flow")
    session_gap_s: float = Field(1800, gt=0, le=LONGEST_GAP_S, description="A longer pause begins a new session")
    lateness_s: float = Field(600, ge=0, le=YEAR_S, description="A later event counts in popularity only")
    pair_window: int = Field(3, ge=1, le=8, description="Items of the session a new one is paired with")
    neighbours: int = Field(50, ge=1, le=50, description="Neighbours kept for an item")
    short_half_life_s: float = Field(
        86_400, ge=MIN_HALF_LIFE_S, le=MAX_HALF_LIFE_S, description="Short half-life of popularity (trend)"
    )
    long_half_life_s: float = Field(
        7 * 86_400, ge=MIN_HALF_LIFE_S, le=MAX_HALF_LIFE_S, description="Long half-life of popularity"
    )
    affinity_half_life_s: float = Field(
        7 * 86_400, ge=MIN_HALF_LIFE_S, le=MAX_HALF_LIFE_S, description="Half-life of user affinities"
    )
    scope_limit: int = Field(200, ge=1, le=1000, description="Items in the list of everything")
    small_scope_limit: int = Field(50, ge=1, le=1000, description="Items in the list of a category or brand")
    dedupe_window: int = Field(1 << 20, ge=2048, multiple_of=2048, description="Event ids remembered by a lane")
    max_cached_users: int = Field(1_000_000, ge=100, description="User rows a lane keeps in memory (about 1 KiB each)")
    max_cached_items: int = Field(1_000_000, ge=100, description="Item rows a lane keeps in memory (1.2 KiB each)")
    weight_view: float = Field(1, ge=0, le=MAX_WEIGHT, description="Weight of a view or click")
    weight_cart: float = Field(3, ge=0, le=MAX_WEIGHT, description="Weight of adding to the cart")
    weight_wishlist: float = Field(2, ge=0, le=MAX_WEIGHT, description="Weight of a wish list entry or share")
    weight_purchase: float = Field(5, ge=0, le=MAX_WEIGHT, description="Weight of a purchase")
    weight_star: float = Field(1, ge=0, le=MAX_WEIGHT, description="Weight of each star above 2.5 in a rating")

    anchors_url: str = Field(
        "",
        description="Where anchors are kept: a folder, or s3://BUCKET/PREFIX and the like; empty: anchors in data_dir",
    )
    anchors_config: dict[str, Any] = Field(
        {}, description="Further settings of fsspec's file system for it (s3fs: endpoint_url, profile, …)"
    )
    anchors_timeout_s: float = Field(
        60, gt=0, description="An object store that moves no byte for so long counts as away, and is tried again"
    )
    factors: int = Field(64, ge=4, le=512, description="Dimensions of the anchor")
    als_iterations: int = Field(15, ge=1, description="ALS iterations")
    als_regularization: float = Field(0.05, gt=0, description="ALS regularization")
    als_alpha: float = Field(2.0, gt=0, description="Confidence gained per unit of event weight")
    anchor_tolerance: float = Field(0.02, ge=0, description="Share of recall a new anchor may lose and be published")
    als_threads: int = Field(0, ge=0, description="Threads of the training; 0: all cores")

    ranker: Literal["auto", "off"] = Field(
        "auto", description="Order the likeliest items by the anchor's trees, where it has some; off: by likelihood"
    )

    http_host: str = Field("127.0.0.1", description="Address the HTTP server listens on")
    http_port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server")
    grpc_port: int = Field(8081, ge=0, le=65535, description="Port of the gRPC server")
    flow_metrics_port: int = Field(8082, ge=0, le=65535, description="Port of the flow's metrics; 0: none")
    reuse_port: bool = Field(False, description="Several servers may listen on the same port; the kernel shares it out")
    keys_file: Path | None = Field(None, description="File of API keys; default: keys.json in data_dir")
    allow_anonymous: bool = Field(
        False, description="Callers without an API key may ask for recommendations and send events, and no more"
    )
    http_certificate: Path | None = Field(None, description="HTTP over TLS: the server's certificate chain (PEM)")
    http_private_key: Path | None = Field(None, description="HTTP over TLS: its private key (PEM)")
    grpc_certificate: Path | None = Field(None, description="gRPC over TLS: the server's certificate chain (PEM)")
    grpc_private_key: Path | None = Field(None, description="gRPC over TLS: its private key (PEM)")
    grpc_client_ca: Path | None = Field(None, description="gRPC over mutual TLS: who signs clients' certificates (PEM)")
    store_timeout_s: float = Field(
        0.1, gt=0, description="How long an answer waits for Redis, all its reads together, before it does without"
    )
    impressions_share: float = Field(
        0, ge=0, le=1, description="Share of the answers whose items go to the impressions topic"
    )
    default_count: int = Field(20, ge=1, le=200, description="Items in an answer when the request does not say")
    exclude_purchased: bool = Field(False, description="Leave out what the user bought, unless the request says")
    exclude_out_of_stock: bool = Field(True, description="Leave out items with stock 0, unless the request says")
    item_ttl_ms: int = Field(500, ge=0, description="How long a server reuses an item row")
    server_cached_items: int = Field(200_000, ge=1000, description="Item rows a server keeps in memory")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _TomlValues(settings_cls)

    @field_validator("id_key")
    @classmethod
    def _hex(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch("([0-9a-fA-F]{32})?", value.get_secret_value()):
            raise ValueError("it has 32 hex digits, as `openssl rand -hex 16` makes them")
        return value

    @property
    def log_address(self) -> str:
        """Address of the log, the embedded one by default."""
        return self.log_url or f"sqlite:{self.data_dir / 'log.sqlite'}"

    @field_validator("log_url")
    @classmethod
    def _is_a_log(cls, url: str) -> str:
        scheme, _, rest = url.partition(":")
        if url and (scheme not in ("kafka", "sqlite") or not rest):
            raise ValueError("is neither kafka:HOST:PORT nor sqlite:PATH")
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme not in REDIS_SCHEMES:
            raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in REDIS_SCHEMES)}")
        _ = parts.port  # raises ValueError for one that is no number
        return url

    @property
    def last_good_dir(self) -> Path:
        """Folder of what servers answer from without Redis."""
        return self.data_dir / "last-good"

    @property
    def keys_path(self) -> Path:
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def is_local(self) -> bool:
        """Say whether only programs on this machine can reach the servers."""
        return is_loopback(self.http_host)

    @property
    def anchors_dir(self) -> Path:
        return self.data_dir / "anchors"

    @property
    def anchor_copies_dir(self) -> Path:
        """Folder of copies of anchors from an object store."""
        return self.data_dir / "anchor-copies"

    @property
    def redis_address(self) -> str:
        """Address of Redis; raises BadSettings where there is none."""
        if not self.redis_url:
            raise BadSettings(f"{PREFIX}REDIS_URL is not set; set it, or let `headrace up` start a Redis")
        return self.redis_url


class _TomlValues(PydanticBaseSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return _file_values()


def _instead(name: str, names: list[str]) -> str:
    """Return what to do instead of setting `name`, as the end of a sentence."""
    former = FORMER.get(name.removeprefix(PREFIX).lower())
    if former is not None:
        return f" any more: {former} (docs/security.md)"
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


def load_settings() -> Settings:
    """Return the settings; raises BadSettings naming the setting that cannot be."""
    known = list(Settings.model_fields)
    variables = [PREFIX + name.upper() for name in known]
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES and name not in variables:
            raise BadSettings(f"{name} is no setting{_instead(name, variables)}")
    for name in _file_values():
        if name not in known:
            raise BadSettings(f"{name} in {_file()} is no setting{_instead(name, known)}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = PREFIX + name.upper() if origin(name) == "environment" else f"{name} in {_file()}"
        secret = name in Settings.model_fields and Settings.model_fields[name].annotation is SecretStr
        got = "" if secret else f"; got {shown('.'.join(map(str, first['loc'])), first['input'])!r}"
        raise BadSettings(f"{where}: {first['msg']}{got}") from None
    except Exception as error:  # pydantic-settings wraps what it cannot parse at all
        raise BadSettings(str(error)) from None


def origin(name: str) -> str:
    """Return where a setting's value comes from: environment, file or default."""
    if PREFIX + name.upper() in os.environ:
        return "environment"
    return "file" if name in _file_values() else "default"
