"""`headrace up`: Redis, flow and server under one supervisor, their data in one folder."""

import contextlib
import fcntl
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import typer

from flows.signals import stop_on_signals
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, read_settings
from headrace.run_file import remove_run_file, write_run_file
from headrace.settings import Settings
from serving.auth.api_keys import BadKeys, open_guard
from state.embedded_redis import EmbeddedRedis, RedisMissing
from state.generations import live_generation, read_generation
from state.ports import free_port
from state.rows import keys
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

STOP_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
CALM_S = 30.0
SPARE_AFTER_S = 10.0


class WrongSettings(Exception):
    """A child cannot start with its settings, however often; its log has the reason."""


class Child:
    """A process that is started again when it dies: by one that waits, with what takes seconds behind it."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name, self._environment = name, environment
        self._process: subprocess.Popen[str] | None = None
        self._spare: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._due = 0.0

    @property
    def pid(self) -> int:
        """Process id of the one at work, 0 for none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Let a process begin its work: the one in reserve, where there is one."""
        spare, self._spare = self._spare, None
        self._process = spare if spare is not None and spare.poll() is None else self._waiting()
        self._started = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has just died, which `watch` sees
            self._process.stdin.write("start\n")
            self._process.stdin.flush()

    def _waiting(self) -> subprocess.Popen[str]:
        """Start a process that loads and compiles everything and then waits for a line on stdin before it works."""
        command = [sys.executable, "-m", "headrace", self.name, "--on-request"]
        process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._relay, args=(process,), daemon=True).start()
        return process

    def watch(self, may_have_spare: bool) -> None:
        """Start the process again when it is gone, after a pause that grows while it keeps dying.

        Raises WrongSettings.
        """
        calm = self._process is not None and time.monotonic() - self._started > SPARE_AFTER_S
        if may_have_spare and calm and self._spare is None:
            self._spare = self._waiting()
        if self._process is not None and self._process.poll() is not None:
            if time.monotonic() - self._started > CALM_S:
                self._pause_s = FIRST_PAUSE_S
            code = self._process.returncode
            if code == WRONG_USAGE:
                raise WrongSettings(f"{self.name} cannot start (exit code {code}); what it said is above")
            err.print(f"{self.name} ended with {code}; starting it again in {self._pause_s:.1f} s")
            self._process, self._due = None, time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if self._process is None and time.monotonic() >= self._due:
            self.start()

    def stop(self) -> None:
        """End the process at work by SIGTERM, or after STOP_S by SIGKILL, and the one in reserve."""
        if self._spare is not None:
            self._spare.kill()
            self._spare.wait()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _relay(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            err.print(f"{self.name:>5} | {line.rstrip()}", markup=False, highlight=False, soft_wrap=True)


class WatchedRedis:
    """A Redis that is started again when it dies; flow and server go on by themselves when it is back."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        self._redis, self._due, self._pause_s = redis, 0.0, FIRST_PAUSE_S

    def watch(self) -> None:
        """Start Redis again when it is gone; where that fails, after a pause that grows."""
        process, now = self._redis.process, time.monotonic()
        if (process is not None and process.poll() is None) or now < self._due:
            return
        err.print(f"redis ended{'' if process is None else f' with {process.returncode}'}; starting it again")
        try:
            self._redis.start()
            self._pause_s = FIRST_PAUSE_S
        except RedisMissing as error:
            err.print(str(error), markup=False)
            self._redis.kill()
            self._due, self._pause_s = now + self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)


def _answers(url: str) -> bool:
    # Whoever the certificate names, the port is that of the server just started.
    context = ssl._create_unverified_context() if url.startswith("https") else None
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1, context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _folds(store: RedisStore) -> bool:
    """Return whether all lanes of the live generation have an owner."""
    try:
        live = live_generation(store)
        generation = read_generation(store, live) if live else None
        return generation is not None and all(store.read([keys.owner(prefix) for prefix in generation.prefixes]))
    except StoreUnavailable:
        return False


def run(settings: Settings) -> int:
    """Start everything and keep it running until SIGINT or SIGTERM; return the exit code."""
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    stopping = threading.Event()
    stop_on_signals(stopping)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            err.print(f"another `headrace up` already runs on {folder}")
            return FAILED
        try:
            open_guard(settings)  # says at once what the server would say again and again
            return _run(settings, folder, stopping)
        except (BadKeys, WrongSettings) as error:
            err.print(str(error), markup=False)
            return WRONG_USAGE
        except RedisMissing as error:
            err.print(str(error), markup=False)
            return UNAVAILABLE
        finally:
            remove_run_file(folder)


def _run(settings: Settings, folder: Path, stopping: threading.Event) -> int:
    redis = None if settings.redis_url else EmbeddedRedis(folder / "redis")
    if redis is not None:
        redis.start()
    url = redis.url if redis is not None else settings.redis_url
    http, grpc = settings.http_port or free_port(), settings.grpc_port or free_port()
    url_http = f"http{'s' if settings.http_certificate else ''}://127.0.0.1:{http}"
    environment = {
        **os.environ,
        "HEADRACE_DATA_DIR": str(folder),
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_FLOW_NAME": "up",  # the same at every start: it takes its own lease over at once
        "HEADRACE_HTTP_PORT": str(http),
        "HEADRACE_GRPC_PORT": str(grpc),
    }
    watched = WatchedRedis(redis) if redis is not None else None
    children, store = [Child("flow", environment), Child("serve", environment)], RedisStore(url)
    try:
        for child in children:
            child.start()
        ready, told = False, dict[str, int]()
        while not stopping.wait(0.1):
            for child in children:
                child.watch(ready)  # not while the first ones still compile
            if watched is not None:
                watched.watch()
            if not ready and _answers(url_http) and _folds(store):
                ready = True
                err.print(f"ready: {url_http}  gRPC 127.0.0.1:{grpc}  data in {folder}", markup=False)
            pids = {child.name: child.pid for child in children}
            if ready and pids != told and all(pids.values()):
                told = pids
                body = {"redis_url": url, "http": url_http, "grpc": f"127.0.0.1:{grpc}", "pids": pids}
                write_run_file(folder, body)
    finally:
        store.close()
        for child in reversed(children):
            child.stop()
        if redis is not None:
            redis.stop()
    err.print("everything has stopped")
    return OK


def command() -> None:
    """Start everything in one go: Redis, the embedded log, the flow and the server. Ctrl-C stops all of it."""
    raise typer.Exit(run(read_settings()))
