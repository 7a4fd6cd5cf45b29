"""A server as a process: REST and gRPC in one event loop, following pointers and catalogue."""

import asyncio
import contextlib
import gc
import sys
import threading
import time

import structlog
import uvicorn
from threadpoolctl import threadpool_limits

from flows.connect import connect
from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.runtime_tuning import SWITCH_S
from flows.signals import stop_on_signals
from schemas.registry import RegistryUnavailable
from serving.app.follower import open_recommender
from serving.app.warm_up import warm_up
from serving.app.wiring import Server
from serving.auth.api_keys import BadKeys, Guard, open_guard
from serving.engine.clock import now_ms
from serving.engine.guarded_store import GuardedStore
from serving.engine.offline_copy import OfflineSnapshot
from serving.engine.recommender import Recommender
from serving.http import port
from serving.settings import ServingSettings
from state.eviction import refuse_eviction
from state.generations import live_generation
from state.id_key import use_id_key
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

GC_THRESHOLDS = 5_000, 20, 200
ASIDE_TIMEOUT_S = 2.0
"""How long what no request waits for may wait for Redis."""

log = structlog.get_logger()


def _first_recommender(store: RedisStore, settings: ServingSettings) -> Recommender:
    """Return a recommender, from the copy on disk when Redis is away. Raises StoreUnavailable without either."""
    offline = OfflineSnapshot(settings.offline_dir)
    guarded = GuardedStore(store, settings.store_timeout_s, store.line)
    try:
        connect("Redis", settings.connect_timeout_s if offline.generation() is None else 0, store.ping)
        refuse_eviction(store, settings)
        recommender = open_recommender(guarded, settings, live_generation(store) or settings.generation)
        offline.load_book_into(recommender.shop)  # until the store gives its own, or for good where that lost it
        return recommender
    except StoreUnavailable:
        generation = offline.generation()
        if generation is None:
            raise
        recommender = Recommender(guarded, settings, generation)
        if not offline.load_into(recommender.shop):
            raise
        log.warning("Redis is away; answering from the copy on disk", items=len(recommender.shop.catalogue))
        return recommender


async def _serve(settings: ServingSettings, store: RedisStore, guard: Guard, stopping: threading.Event) -> None:
    sockets = port.bind(settings)
    recommender = _first_recommender(store, settings)
    warm_up()
    bound = {"delivery.timeout.ms": str(int(settings.log_timeout_s * 1000))}
    events_log = open_log(settings.log_address, config={**bound, **settings.kafka_config})
    server = Server(settings, recommender, guard, events_log, open_registry(settings))
    with contextlib.suppress(StoreUnavailable):
        await server.follower.look()
        started = time.monotonic()
        n_read = recommender.shop.prefetch(now_ms())
        log.info("item rows read ahead", items=n_read, seconds=round(time.monotonic() - started, 2))
    recommender.store.attach()
    await server.follower.saved()  # the first copy on disk of a large catalogue takes a second of Python
    _tune_interpreter()
    log.info(
        "server is running", http=settings.http_port, grpc=settings.grpc_port, items=len(recommender.shop.catalogue)
    )
    server.http.should_exit = stopping.is_set()  # by a signal that came before the server had handlers of its own
    await server.serve(sockets)


def _tune_interpreter() -> None:
    """Keep the interpreter from making answers wait, once all that stays is loaded."""
    # What is there now stays: looking through a large catalogue for garbage again and again would keep answers waiting.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # Other threads (exposures, the copy on disk, a new anchor) would otherwise hold the interpreter for 5 ms at a time.
    sys.setswitchinterval(SWITCH_S)


def run_server(settings: ServingSettings) -> int:
    """Run the server until a signal; return the exit code."""
    try:
        use_id_key(settings)
        guard = open_guard(settings)
        store = RedisStore(settings.redis_address, ASIDE_TIMEOUT_S)
        config = settings.kafka_config
        connect("the log", settings.connect_timeout_s, lambda: open_log(settings.log_address, config=config).close())
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable, BadKeys) as error:
        log.error("the server cannot start", error=str(error))
        return 3
    # uvicorn raises the signal that stopped it once more; by default that would end the process at once.
    stopping = threading.Event()
    stop_on_signals(stopping)
    # Products are small here, and threads that wait for the next one do so in a busy loop.
    with threadpool_limits(1), contextlib.suppress(KeyboardInterrupt):
        uvicorn_loop = uvicorn.Config("", loop="auto").get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            try:
                runner.run(_serve(settings, store, guard, stopping))
            except StoreUnavailable as error:
                log.error("the server cannot start", error=str(error))
                return 3
    store.close()
    log.info("server has stopped")
    return 0
