"""Servers that really run, for tests of what goes over the wire."""

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from flows.log.sqlite_log import SqliteLog
from headrace.settings import Settings
from schemas.registry import FolderRegistry
from serving.app.follower import Follower
from serving.app.warm_up import warm_up
from serving.auth.api_keys import Guard
from serving.engine.impression_log import Impressions
from serving.engine.micro_batcher import MicroBatcher
from serving.grpc.service import make_server
from serving.http.app import make_app
from serving.http.tls import http_tls
from state.ports import free_port


class Running:
    """What a test needs to talk to a running server."""

    def __init__(
        self, folder, recommender, impressions_share=0.0, require_key=False, settings=None, grace_s=1,
        follow=False, registry=None, log=None,
    ):  # fmt: skip
        warm_up()
        self.recommender, self.keys = recommender, folder / "keys.json"
        self.log = log or SqliteLog(folder / "log.sqlite")
        self.http_port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.guard = Guard(self.keys, open_without_keys=not require_key)
        self.impressions = Impressions(self.log, FolderRegistry(), impressions_share)
        gather = self.gather = MicroBatcher(recommender, self.impressions)
        self.app = make_app(recommender, gather, self.log, registry or FolderRegistry(), lambda: True, self.guard)
        config = uvicorn.Config(
            self.app,
            "127.0.0.1",
            self.http_port,
            http=self.app.state.hot,
            log_level="error",
            **http_tls(settings or Settings()),
        )
        self._uvicorn = uvicorn.Server(config)

        async def serve():
            self._loop = asyncio.get_running_loop()
            self.rpc = make_server(recommender, gather, self.guard)
            await self.rpc.listen(
                (settings or Settings()).model_copy(update={"http_host": "127.0.0.1", "grpc_port": self.grpc_port})
            )
            recommender.store.attach()
            following = asyncio.create_task(Follower(recommender, settings, self.guard).run()) if follow else None
            await self._uvicorn.serve()
            if following is not None:
                following.cancel()
            recommender.store.close()
            await self.rpc.stop(grace_s)

        def run():
            with asyncio.Runner(loop_factory=uvicorn.Config("", loop="auto").get_loop_factory()) as runner:
                runner.run(serve())

        self._thread = threading.Thread(target=run)
        self._thread.start()
        while not self._uvicorn.started:
            time.sleep(0.01)
        self.client = httpx.Client(base_url=self.url)

    @property
    def calls_under_way(self):
        """Calls over gRPC that have no end yet."""
        return sum(task.get_name().startswith("HandleExceptions[") for task in asyncio.all_tasks(self._loop))

    @property
    def has_stopped(self):
        return not self._thread.is_alive()

    def stop(self):
        self.client.close()
        self._uvicorn.should_exit = True
        self._thread.join(20)
        self.impressions.close()
        self.log.close()


@contextmanager
def running(*args, **kwargs):
    server = Running(*args, **kwargs)
    try:
        yield server
    finally:
        server.stop()
