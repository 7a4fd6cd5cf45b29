"""Refuses a Redis that evicts keys when its memory is full: the rows in it are the state, not a cache."""

import structlog

from state.settings import PREFIX, BadSettings, StoreSettings
from state.store.redis_store import RedisStore

log = structlog.get_logger()


def refuse_eviction(store: RedisStore, settings: StoreSettings) -> None:
    """Raise BadSettings where Redis would evict rows, or warn where the settings allow it. Raises StoreUnavailable."""
    found = store.evicts()
    if not found:
        return
    problem = f"{found}: it removes rows when it is full; set maxmemory-policy to noeviction"
    if settings.redis_eviction == "refuse":
        raise BadSettings(f"{problem}, or {PREFIX}REDIS_EVICTION=warn to go on all the same")
    log.warning("Redis evicts rows", error=problem)
