"""What the fold and the decoder take of the settings."""

from flows.fold.settings import LaneSettings
from schemas.avro_decoder import Limits
from schemas.events import Kind
from state.settings import Settings


def lane_settings(settings: Settings) -> LaneSettings:
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


def limits_of(settings: Settings) -> Limits:
    """Return what makes a message be refused."""
    return Limits(settings.max_message_bytes, int(settings.max_future_s * 1000))
