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
from serving.app.warm_up import warm_up
from serving.app.wiring import Server
from serving.auth.api_keys import Guard, open_guard
from serving.http import port
from state.ports import free_port


class Running:
    """The server's own wiring in a thread, and what a test needs to talk to it.

    Redis, the log and the key file are the test's. The file need not exist: with `require_key` no caller without a key
    is admitted then, else all are, as on a laptop.
    """

    def __init__(
        self, folder, recommender, impressions_share=0.0, require_key=False, settings=None, grace_s=1, registry=None,
        log=None,
    ):  # fmt: skip
        warm_up()
        own = {
            "data_dir": folder, "http_host": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port(),
            "impressions_share": impressions_share,
        }  # fmt: skip
        settings = (settings or Settings()).model_copy(update=own)
        self.keys, self.log, self.recommender = settings.keys_path, log or SqliteLog(folder / "log.sqlite"), recommender
        guard = Guard(self.keys) if require_key else open_guard(settings)
        self.wired = Server(settings, recommender, guard, self.log, registry or FolderRegistry())
        self.guard, self.gather, self.app = guard, self.wired.micro_batcher, self.wired.app
        self.impressions = self.wired.impressions
        self.http_port, self.grpc_port = settings.http_port, settings.grpc_port
        self.url = f"{'https' if settings.http_certificate else 'http'}://127.0.0.1:{self.http_port}"

        async def serve():
            self._loop = asyncio.get_running_loop()
            sockets = port.bind(settings)
            recommender.store.attach()
            await self.wired.serve(sockets, grace_s)

        def run():
            with asyncio.Runner(loop_factory=uvicorn.Config("", loop="auto").get_loop_factory()) as runner:
                runner.run(serve())

        self._thread = threading.Thread(target=run)
        self._thread.start()
        while not self.wired.http.started:
            assert self._thread.is_alive(), "the server did not start"
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
        self.wired.http.should_exit = True
        self._thread.join(20)


@contextmanager
def running(*args, **kwargs):
    server = Running(*args, **kwargs)
    try:
        yield server
    finally:
        server.stop()
