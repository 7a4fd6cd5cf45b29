"""Settings of a flow: plain values, which `headrace.settings` reads."""

from pydantic import Field

from flows.fold.settings import LaneSettings
from flows.log.settings import LogSettings
from schemas.avro_decoder import Limits
from schemas.events import Kind
from state import bounds
from state.settings import FoldSettings, StoreSettings


class FlowSettings(FoldSettings, LogSettings, StoreSettings):
    """Settings of a flow."""

    flow_name: str = Field("", description="Name of a flow process among its like; empty: a random one")
    flow_workers: int = Field(1, ge=1, description="Worker threads of a flow on Bytewax, which share its lanes")
    lease_s: float = Field(3, ge=0.5, description="A flow process unseen for so long loses its lanes to the others")
    batch_max_events: int = Field(
        240_000, ge=1, description="Most messages in one batch of the flow (at most a quarter of the rows it caches)"
    )
    max_bad_in_a_row: int = Field(10_000, ge=1, description="So many refused messages in a row stop the flow")
    max_cached_users: int = Field(
        bounds.MAX_CACHED_USERS, ge=100, description="User rows a lane keeps in memory (about 1 KiB each)"
    )
    max_cached_items: int = Field(
        bounds.MAX_CACHED_ITEMS, ge=100, description="Item rows a lane keeps in memory (1.2 KiB each)"
    )
    http_host: str = Field("127.0.0.1", description="Address the HTTP server, and the flow's metrics, listen on")
    flow_metrics_port: int = Field(8082, ge=0, le=65535, description="Port of the flow's metrics; 0: none")

    @property
    def log_address(self) -> str:
        """Return the address of the log, the embedded one by default."""
        return self.log_url or f"sqlite:{self.data_dir / 'log.sqlite'}"


def lane_settings(settings: FlowSettings) -> LaneSettings:
    """Return what the fold depends on."""
    ms = 1000
    return LaneSettings(
        n_lanes=settings.n_lanes,
        session_gap_ms=int(settings.session_gap_s * ms),
        lateness_ms=int(settings.lateness_s * ms),
        pair_window=settings.pair_window,
        neighbours=settings.neighbours,
        short_half_life_ms=int(settings.short_half_life_s * ms),
        long_half_life_ms=int(settings.long_half_life_s * ms),
        affinity_half_life_ms=int(settings.affinity_half_life_s * ms),
        scope_limit=settings.scope_limit,
        small_scope_limit=settings.small_scope_limit,
        dedupe_window=settings.dedupe_window,
        max_cached_users=settings.max_cached_users,
        max_cached_items=settings.max_cached_items,
        weights={
            Kind.VIEW: settings.weight_view,
            Kind.CLICK: settings.weight_view,
            Kind.ADD_TO_CART: settings.weight_cart,
            Kind.WISHLIST: settings.weight_wishlist,
            Kind.SHARE: settings.weight_wishlist,
            Kind.PURCHASE: settings.weight_purchase,
            Kind.RATING: settings.weight_star,
            Kind.REMOVE_FROM_CART: -settings.weight_cart,
            Kind.RETURN: -settings.weight_purchase,
            Kind.DISLIKE: -settings.weight_cart,
        },
    )


def limits_of(settings: LogSettings) -> Limits:
    """Return what makes a message be refused."""
    return Limits(settings.max_message_bytes, int(settings.max_future_s * 1000))
