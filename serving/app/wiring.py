"""The parts of a server, wired together: what the process `headrace serve` runs, and what tests start in a thread."""

import asyncio
import contextlib
import socket

import uvicorn

from flows.books import open_books
from flows.log.contract import Log
from schemas.registry import SchemaRegistry
from serving.app.follower import Follower
from serving.auth.api_keys import Guard
from serving.engine.impression_log import Impressions
from serving.engine.micro_batcher import MicroBatcher
from serving.engine.recommender import Recommender
from serving.grpc.service import make_server
from serving.http import port
from serving.http.app import make_app
from serving.http.tls import http_tls
from serving.settings import ServingSettings

DRAIN_S = 10.0


class Server:
    """REST, GraphQL and gRPC over one recommender, and the follower that keeps it up to date."""

    def __init__(
        self,
        settings: ServingSettings,
        recommender: Recommender,
        guard: Guard,
        events_log: Log,
        registry: SchemaRegistry,
    ) -> None:
        """Make every part; no port is listened on yet. The server closes the log when it ends."""
        self.settings, self.recommender, self.guard, self.events_log = settings, recommender, guard, events_log
        self.books = open_books(settings, recommender.store.plain, registry)
        self.follower = Follower(recommender, settings, guard, self.books)
        self.impressions = Impressions(events_log, registry, settings.impressions_share)
        self.micro_batcher = MicroBatcher(recommender, self.impressions)
        self.app = make_app(
            recommender, self.micro_batcher, events_log, registry, self.is_ready, guard, self.books, settings.origins
        )
        self.rpc = make_server(recommender, self.micro_batcher, guard)
        self.http = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=self.app.state.hot,
                log_level="warning",
                **http_tls(settings),
                timeout_graceful_shutdown=int(DRAIN_S),
            )
        )

    def is_ready(self) -> bool:
        """Return whether there is something to answer from."""
        return len(self.recommender.shop.catalogue) > 0 or self.follower.ready

    async def serve(self, sockets: list[socket.socket], drain_s: float = DRAIN_S) -> None:
        """Serve until `http.should_exit`; calls under way have `drain_s` to end. Raises BadSettings."""
        port.listen(self.settings, sockets)
        await self.rpc.listen(self.settings)
        following = asyncio.create_task(self.follower.run())
        try:
            await self.http.serve(sockets)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await self.follower.saved()
            await self.rpc.stop(drain_s)
            self.recommender.store.close()
            self.impressions.close()
            self.events_log.close()
