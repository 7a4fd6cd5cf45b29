"""Connections to Redis, the log and the registry, made again while they are away."""

from collections.abc import Callable
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from flows.log.contract import LogUnavailable
from schemas.registry import RegistryUnavailable
from state.id_key import use_id_key
from state.settings import StoreSettings
from state.store.contract import StoreUnavailable
from state.store.redis_store import TIMEOUT_S, RedisStore

T = TypeVar("T")
log = structlog.get_logger()


def connect(what: str, timeout_s: float, attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, trying again while `what` is away; log that once."""

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            log.warning(f"{what} is not there yet; trying for {timeout_s:.0f} s", error=str(state.outcome.exception()))

    away = retry_if_exception_type((StoreUnavailable, LogUnavailable, RegistryUnavailable))
    waiting = wait_exponential(0.1, max=2)
    for trial in Retrying(retry=away, wait=waiting, stop=stop_after_delay(timeout_s), before_sleep=say, reraise=True):
        with trial:
            return attempt()
    raise AssertionError("unreachable")


def open_store(settings: StoreSettings, patient: bool = False, timeout_s: float = TIMEOUT_S) -> RedisStore:
    """Return the store, if Redis answers; a `patient` caller waits for it up to the settings' limit.

    `timeout_s`: how long each of its reads and writes may take.

    From here on ids are hashed with the installation's key, which the names of rows are made with.
    Raises StoreUnavailable, BadSettings.
    """

    use_id_key(settings)

    def attempt() -> RedisStore:
        store = RedisStore(settings.redis_address, timeout_s)
        store.ping()
        return store

    return connect("Redis", settings.connect_timeout_s, attempt) if patient else attempt()
