"""Settings of the state: plain values, which `headrace.settings` reads and the programs pass on.

Times are in the unit of the name: `_s` seconds, `_ms` milliseconds.
"""

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from state import bounds

PREFIX = "HEADRACE_"
"""Of the environment variable that sets a value; messages name it."""
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis-cluster", "rediss-cluster")


class BadSettings(Exception):
    """A setting has a value that cannot be used; the message names the setting and the remedy."""


class FoldSettings(BaseModel):
    """Settings that the rows depend on: fixed for the life of a generation, and kept in its record."""

    model_config = ConfigDict(frozen=True)

    n_lanes: int = Field(1, ge=1, le=1024, description="Shards of the fold; changing it needs a new generation")
    session_gap_s: float = Field(
        bounds.SESSION_GAP_S, gt=0, le=bounds.LONGEST_GAP_S, description="A longer pause begins a new session"
    )
    lateness_s: float = Field(
        bounds.LATENESS_S, ge=0, le=bounds.YEAR_S, description="A later event counts in popularity only"
    )
    pair_window: int = Field(
        bounds.PAIR_WINDOW, ge=1, le=8, description="Items of the session a new one is paired with"
    )
    neighbours: int = Field(bounds.NEIGHBOURS, ge=1, le=50, description="Neighbours kept for an item")
    short_half_life_s: float = Field(
        bounds.SHORT_HALF_LIFE_S, ge=bounds.MIN_HALF_LIFE_S, le=bounds.MAX_HALF_LIFE_S,
        description="Short half-life of popularity (trend)",
    )  # fmt: skip
    long_half_life_s: float = Field(
        bounds.LONG_HALF_LIFE_S, ge=bounds.MIN_HALF_LIFE_S, le=bounds.MAX_HALF_LIFE_S,
        description="Long half-life of popularity",
    )  # fmt: skip
    affinity_half_life_s: float = Field(
        bounds.AFFINITY_HALF_LIFE_S, ge=bounds.MIN_HALF_LIFE_S, le=bounds.MAX_HALF_LIFE_S,
        description="Half-life of user affinities",
    )  # fmt: skip
    scope_limit: int = Field(bounds.SCOPE_LIMIT, ge=1, le=1000, description="Items in the list of everything")
    small_scope_limit: int = Field(
        bounds.SMALL_SCOPE_LIMIT, ge=1, le=1000, description="Items in the list of a category or brand"
    )
    dedupe_window: int = Field(
        bounds.DEDUPE_WINDOW, ge=2048, multiple_of=2048, description="Event ids remembered by a lane"
    )
    weight_view: float = Field(bounds.WEIGHT_VIEW, ge=0, le=bounds.MAX_WEIGHT, description="Weight of a view or click")
    weight_cart: float = Field(
        bounds.WEIGHT_CART, ge=0, le=bounds.MAX_WEIGHT, description="Weight of adding to the cart"
    )
    weight_wishlist: float = Field(
        bounds.WEIGHT_WISHLIST, ge=0, le=bounds.MAX_WEIGHT, description="Weight of a wish list entry or share"
    )
    weight_purchase: float = Field(
        bounds.WEIGHT_PURCHASE, ge=0, le=bounds.MAX_WEIGHT, description="Weight of a purchase"
    )
    weight_star: float = Field(
        bounds.WEIGHT_STAR, ge=0, le=bounds.MAX_WEIGHT, description="Weight of each star above 2.5 in a rating"
    )


class StoreSettings(BaseModel):
    """Settings: the address of the store, and the key that ids are hashed with."""

    model_config = ConfigDict(frozen=True)

    data_dir: Path = Field(Path("data"), description="Folder of the embedded log, Redis data and anchors")
    redis_url: str = Field("", description="redis://…; empty: `headrace up` starts one of its own in data_dir")
    redis_eviction: Literal["refuse", "warn"] = Field(
        "refuse", description="What a flow or server does at its start with a Redis that evicts rows when it is full"
    )
    id_key: SecretStr = Field(
        SecretStr(""),
        description="Key that ids are hashed with, 32 hex digits, the same on all machines; empty: id.key in data_dir",
    )
    connect_timeout_s: float = Field(
        30,
        gt=0,
        description="How long programs wait for Redis and the log at their start, and trainings for its next part",
    )
    generation: str = Field(
        "g1", pattern=r"^[a-z0-9-]+$", description="Generation a first start makes; later the live one is folded"
    )
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

    @property
    def redis_address(self) -> str:
        """Return the address of Redis; raises BadSettings where there is none."""
        if not self.redis_url:
            raise BadSettings(
                f"{PREFIX}REDIS_URL is not set and no `headrace up` is ready on the folder {self.data_dir}: start "
                f"`headrace up` in another terminal and wait for its `ready`, or set {PREFIX}REDIS_URL"
            )
        return self.redis_url

    @property
    def anchors_dir(self) -> Path:
        """Return the folder of the anchors."""
        return self.data_dir / "anchors"

    @property
    def anchor_copies_dir(self) -> Path:
        """Return the folder of copies of anchors from an object store."""
        return self.data_dir / "anchor-copies"

    @field_validator("id_key")
    @classmethod
    def _is_hex(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch("([0-9a-fA-F]{32})?", value.get_secret_value()):
            raise ValueError("it has 32 hex digits, as `openssl rand -hex 16` makes them")
        return value

    @field_validator("anchors_url")
    @classmethod
    def _is_a_folder_or_an_address(cls, url: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(?!//)", url):
            raise ValueError("an address has // after its colon, as s3://BUCKET/PREFIX; a folder begins with / or ./")
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme not in REDIS_SCHEMES:
            raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in REDIS_SCHEMES)}")
        _ = parts.port  # raises ValueError for one that is no number
        return url
