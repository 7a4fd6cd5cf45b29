"""A server as a process: REST and gRPC in one event loop, following pointers and catalogue."""

import asyncio
import contextlib
import threading

import structlog
import uvicorn
from grpc_health.v1 import health_pb2

from flows.log import LogUnavailable
from flows.open_log import open_log
from flows.process import connect, open_store, stop_on_signals
from schemas.registry import RegistryUnavailable, open_registry
from serving.gather import Gather
from serving.grpc_api import SERVICE, make_server
from serving.http_api import make_app
from serving.retrieval import VectorIndex
from serving.service import Recommender
from state import keys
from state.anchor import AnchorDamaged
from state.generations import live_generation, read_generation
from state.redis_store import RedisStore
from state.settings import Settings
from state.store import Store, StoreUnavailable

FOLLOW_S = 0.2
DRAIN_S = 10

log = structlog.get_logger()


class Follower:
    """Keeps the recommender's catalogue, totals and anchor up to date."""

    def __init__(self, recommender: Recommender, store: RedisStore, settings: Settings) -> None:
        self._recommender, self._store, self._settings = recommender, store, settings
        self._anchors_dir = settings.anchors_dir
        self._refused: str | None = None
        self.ready = False

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("the store is out of reach", error=str(error))
            await asyncio.sleep(FOLLOW_S)

    async def look(self) -> None:
        """Take over what is new; a generation or an anchor is loaded aside and swapped in at once."""
        generation = live_generation(self._store)
        if generation is not None and generation != self._recommender.generation:
            await self._enter(generation)
        self._recommender.refresh()
        value = self._store.read([keys.ANCHOR_LIVE])[0]
        live = value.decode() if value else None
        if live and live not in (self._recommender.anchor, self._refused):
            try:
                self._recommender.take_over(await asyncio.to_thread(VectorIndex.load, self._anchors_dir / live))
                log.info("anchor taken over", anchor=live)
            except (AnchorDamaged, OSError, RuntimeError) as error:
                self._refused = live
                log.error("anchor cannot be loaded; the one before stays", anchor=live, error=str(error))
        self.ready = True

    async def _enter(self, generation: str) -> None:
        fresh = open_recommender(self._store, self._settings, generation)
        await asyncio.to_thread(fresh.refresh)
        if self._recommender.shop.index is not None:
            fresh.take_over(self._recommender.shop.index)
        self._recommender.become(fresh)
        log.info("generation taken over", generation=generation)


def open_recommender(store: Store, settings: Settings, generation: str) -> Recommender:
    """Return a recommender on a generation's rows, with the settings they were folded with."""
    record = read_generation(store, generation)
    return Recommender(store, record.settings(settings) if record else settings, generation)


async def _serve(settings: Settings, store: RedisStore) -> None:
    recommender = open_recommender(store, settings, live_generation(store) or settings.generation)
    recommender.warm_up()
    gather = Gather(recommender)
    follower = Follower(recommender, store, settings)
    await follower.look()
    events_log = open_log(settings.log_address, config=settings.kafka_config)
    registry = open_registry(settings.schema_registry_url)
    app = make_app(recommender, gather, events_log, registry, lambda: follower.ready)
    rpc, checks = make_server(recommender, gather, f"{settings.http_host}:{settings.grpc_port}")
    await rpc.start()
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    following = asyncio.create_task(follower.run())
    config = uvicorn.Config(
        app, settings.http_host, settings.http_port, log_level="warning", timeout_graceful_shutdown=DRAIN_S
    )
    log.info(
        "server is running", http=settings.http_port, grpc=settings.grpc_port, items=len(recommender.shop.catalogue)
    )
    try:
        await uvicorn.Server(config).serve()  # until SIGTERM or SIGINT
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await rpc.stop(DRAIN_S)
        events_log.close()


def run_server(settings: Settings) -> int:
    """Run the server until a signal; return the exit code."""
    try:
        store = open_store(settings)
        connect("the log", settings.connect_timeout_s, lambda: open_log(settings.log_address).close())
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        log.error("the server cannot start", error=str(error))
        return 3
    # uvicorn raises the signal that stopped it once more; by default that would end the process at once.
    stop_on_signals(threading.Event())
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn_loop = uvicorn.Config("", loop="auto").get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(_serve(settings, store))
    store.close()
    log.info("server has stopped")
    return 0
