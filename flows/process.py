"""A flow as a process: connect, fold until told to stop, recover from what passes."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

import structlog
from prometheus_client import start_http_server
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from flows import metrics
from flows.anchor_follower import AnchorFollower
from flows.dead_letters import DeadLetters
from flows.lane import Lane, LaneSettings
from flows.log import Log, LogUnavailable, PositionLost, RawBatch
from flows.open_log import open_log
from flows.runner import Runner, TooManyBadMessages
from schemas.decode import Limits
from schemas.events import Kind
from schemas.registry import RegistryUnavailable, open_registry
from state.redis_store import RedisStore
from state.settings import Settings
from state.slot_map import CacheTooSmall
from state.store import Fenced, Positions, StoreUnavailable

ANCHOR_LOOK_S = 0.2
POLL_S = 0.1
BACK_OFF_S = 0.5

T = TypeVar("T")
log = structlog.get_logger()


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


def connect(what: str, timeout_s: float, attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, trying again while the thing is away; says so once."""

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            log.warning(f"{what} is not there yet; trying for {timeout_s:.0f} s", error=str(state.outcome.exception()))

    away = retry_if_exception_type((StoreUnavailable, LogUnavailable, RegistryUnavailable))
    waiting = wait_exponential(0.1, max=2)
    for trial in Retrying(retry=away, wait=waiting, stop=stop_after_delay(timeout_s), before_sleep=say, reraise=True):
        with trial:
            return attempt()
    raise AssertionError("unreachable")


def open_store(settings: Settings) -> RedisStore:
    """Return the store once Redis answers. Raises StoreUnavailable, BadSettings."""

    def attempt() -> RedisStore:
        store = RedisStore(settings.redis_address)
        store.ping()
        return store

    return connect("Redis", settings.connect_timeout_s, attempt)


class Flow:
    """Everything a driver needs: the log, the runner, the anchors, and the stop flag."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        self.store = open_store(settings)
        address, config = settings.log_address, settings.kafka_config
        self.log: Log = connect("the log", settings.connect_timeout_s, lambda: open_log(address, config=config))
        connect("the log", settings.connect_timeout_s, self.log.start)
        lanes = [
            Lane(lane_settings(settings), self.store, settings.generation, lane) for lane in range(settings.n_lanes)
        ]
        limits = Limits(settings.max_message_bytes, int(settings.max_future_s * 1000))
        self._letters_log = open_log(address, config=config)
        registry = open_registry(settings.schema_registry_url)
        self.runner = Runner(
            lanes, self.store, registry, DeadLetters(self._letters_log), limits, settings.max_bad_in_a_row
        )
        self._follower = AnchorFollower(
            self.store, lanes, settings.generation, settings.n_lanes, Path(settings.anchors_dir), self.runner.commit_now
        )
        self._looked_at = 0.0
        self.positions: Positions = {}

    def open(self) -> Positions:
        """(Re)load the lanes from the store; return the positions to read from."""
        self.positions = self.runner.open()
        self._follower.open()
        return self.positions

    def begin(self) -> Positions:
        """Open for the first time; another owner may be at work on the lanes."""
        try:
            return self.open()
        except (Fenced, StoreUnavailable) as error:
            return self.recover(error)

    def handle(self, raw: RawBatch | None) -> None:
        """Fold a batch (None: there was nothing to read) and do one piece of anchor work.

        Raises Fenced or StoreUnavailable when a commit failed: call `recover`.
        """
        if raw is None:
            self.runner.drain()
        elif not self.runner.misses_some(raw):
            metrics.observe(self.runner.fold(raw))
        now = time.monotonic()
        if self._follower.refolding or now - self._looked_at > ANCHOR_LOOK_S:
            self._looked_at = now
            self.runner.drain()
            self._follower.step(time.time_ns() // 1_000_000)
            metrics.REFOLDED.set(self._follower.n_refolded)

    def recover(self, error: Exception) -> Positions:
        """After Fenced, StoreUnavailable or LogUnavailable: wait if need be, reload, return the positions."""
        while not self.stopping.is_set():
            if isinstance(error, Fenced):
                metrics.FENCES.inc()
                log.warning("fenced: another owner wrote the lane; reloading", error=str(error))
            else:
                metrics.STORE_ERRORS.inc()
                log.warning("out of reach; trying again", error=str(error))
                self.stopping.wait(BACK_OFF_S)
            try:
                return self.open()
            except (Fenced, StoreUnavailable, LogUnavailable) as again:
                error = again
        return self.positions

    def poll(self) -> RawBatch | None:
        """Return the next batch and stand behind it; None when there is nothing to read for a while."""
        wait = 0.0 if self._follower.refolding else POLL_S
        raw = self.log.read(self.positions, self.settings.batch_max_events, wait)
        if raw is not None:
            self.positions = raw.after
        return raw

    def close(self) -> None:
        """Finish the commit under way and let go of everything."""
        try:
            self.runner.close()
        except (Fenced, StoreUnavailable) as error:
            log.warning("the last batch was not committed; it is folded again at the next start", error=str(error))
        self.log.close()
        self._letters_log.close()
        self.store.close()


def stop_on_signals(stopping: threading.Event) -> None:
    """Set the flag on SIGTERM and SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def run_loop(flow: Flow) -> None:
    """Fold until the flow is told to stop: the plain driver."""
    flow.begin()
    log.info("flow is running", generation=flow.settings.generation, lanes=flow.settings.n_lanes, driver="loop")
    while not flow.stopping.is_set():
        try:
            flow.handle(flow.poll())
        except (Fenced, StoreUnavailable, LogUnavailable) as error:
            flow.recover(error)


def run_flow(settings: Settings, driver: str) -> int:
    """Run a flow until a signal; return the exit code."""
    try:
        flow = Flow(settings)
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        log.error("the flow cannot start", error=str(error))
        return 3
    stop_on_signals(flow.stopping)
    if settings.flow_metrics_port:
        start_http_server(settings.flow_metrics_port, settings.http_host)
    try:
        if driver == "bytewax":
            from flows.on_bytewax import run_bytewax

            run_bytewax(flow)
        else:
            run_loop(flow)
    except (PositionLost, TooManyBadMessages, CacheTooSmall, ValueError) as error:
        log.error("the flow stops", error=str(error))
        return 1
    finally:
        flow.close()
    log.info("flow has stopped")
    return 0
