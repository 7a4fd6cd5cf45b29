"""`headrace up`: Redis, flow and server under one supervisor, their data in one folder."""

import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import NamedTuple

from flows.signals import stop_on_signals
from headrace.console import err, wants_text
from headrace.exit_codes import FAILED, OK, UNAVAILABLE, WRONG_USAGE
from headrace.night import Night
from headrace.run_file import AlreadyRunning, held, remove_run_file, write_run_file
from headrace.settings import Settings, load_settings, origin, shared_values
from headrace.supervisor.children import CannotRun, Child, start_all
from headrace.supervisor.compiling import compile_once
from headrace.supervisor.output import Output
from headrace.supervisor.ports import refuse_taken
from headrace.supervisor.redis_process import WatchedRedis
from serving.auth.api_keys import BadKeys, open_guard
from state.embedded_redis import EmbeddedRedis, RedisMissing
from state.generations import live_generation, read_generation
from state.id_key import use_id_key
from state.ports import free_port
from state.rows import keys
from state.settings import PREFIX
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

LOOK_S = 0.1
FLOW_NAME = "up"
"""The same at every start: the flow takes its own lease over at once."""


class Addresses(NamedTuple):
    """Where everything answers."""

    redis_url: str
    http: str
    grpc: str


def run(settings: Settings) -> int:
    """Start everything and keep it running until SIGINT or SIGTERM; return the exit code. Raises BadSettings."""
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    output = Output(err, wants_text(settings), everything=origin("log_level") != "default")
    stopping = threading.Event()
    stop_on_signals(stopping)
    try:
        with held(folder) as is_there:
            remove_run_file(folder)  # of one that was killed
            use_id_key(settings)  # what is wrong with key, keys or ports is said once, before anything starts
            open_guard(settings)
            refuse_taken(settings)
            try:
                return _run(settings, _Place(folder, is_there), output, stopping)
            finally:
                remove_run_file(folder)
    except AlreadyRunning as error:
        output.warn(str(error))
        return FAILED
    except CannotRun as error:
        output.warn(str(error))
        return error.code
    except _FolderGone as error:
        output.warn(str(error))
        return FAILED
    except BadKeys as error:
        output.warn(str(error))
        return WRONG_USAGE
    except RedisMissing as error:
        output.warn(str(error))
        return UNAVAILABLE


class _FolderGone(Exception):
    """The data folder was removed, moved or replaced under what writes into it."""


class _Place(NamedTuple):
    """The data folder, and whether it is still where it was."""

    folder: Path
    is_there: Callable[[], bool]


def _run(settings: Settings, place: _Place, output: Output, stopping: threading.Event) -> int:
    folder = place.folder
    redis = None if settings.redis_url else EmbeddedRedis(folder / "redis", ends_with_parent=True)
    output.tell(f"headrace {installed('headrace')} starts {'' if redis is None else 'Redis, '}flow and server",
                data=str(folder))  # fmt: skip
    compile_once(output, stopping)
    if stopping.is_set():
        return OK
    children, night = list[Child](), None
    try:
        if redis is not None:
            redis.start()
        where = _addresses(settings, redis)
        shared = {**shared_values(settings), "redis_url": where.redis_url}
        _set_environment(folder, where)
        children = [Child("flow", output), Child("serve", output)]
        start_all(children, stopping)
        watched = None if redis is None else WatchedRedis(redis, output)
        night = threading.Thread(target=Night(load_settings(), output.tell).run, args=(stopping,), name="night")
        night.start()
        _watch(_Parts(place, where, shared, children, watched, output, settings), stopping)
    finally:
        stopping.set()
        if night is not None:
            night.join()
        for child in reversed(children):
            child.stop()
        if redis is not None:
            redis.stop()
    output.tell("everything has stopped")
    return OK


class _Parts(NamedTuple):
    place: _Place
    where: Addresses
    shared: dict[str, object]
    children: list[Child]
    redis: WatchedRedis | None
    output: Output
    settings: Settings


def _watch(parts: _Parts, stopping: threading.Event) -> None:
    """Keep the parts running until the stop; write the run file when they answer, and whenever a process is another."""
    ready, told = False, dict[str, int]()
    store, began = RedisStore(parts.where.redis_url), time.monotonic()
    try:
        while not stopping.wait(LOOK_S):
            if not parts.place.is_there():
                raise _FolderGone(
                    f"the data folder {parts.place.folder} was removed or replaced: everything stops, so that no more "
                    "events are taken into files that are gone"
                )
            for child in parts.children:
                child.watch()
            if parts.redis is not None:
                parts.redis.watch()
            if not ready and _answers(parts.where.http) and _folds(store):
                ready = True
                _tell_ready(parts, time.monotonic() - began)
            pids = {child.name: child.pid for child in parts.children}
            if ready and pids != told and all(pids.values()):
                told = pids
                body = {**parts.where._asdict(), "pids": pids, "settings": parts.shared}
                write_run_file(parts.place.folder, body)
    finally:
        store.close()


def _tell_ready(parts: _Parts, seconds: float) -> None:
    where, settings = parts.where, parts.settings
    night = "never trains" if settings.night_at == "off" else (
        f"trains every night at {settings.night_at} {settings.night_zone}, and once when there is first enough to learn"
    )  # fmt: skip
    parts.output.show(
        f"\n[b]ready[/b] after {seconds:.0f} s; Ctrl-C stops everything, the next start goes on with the same data\n"
        f"  page     {where.http}\n"
        f"  API      {where.http}/docs   gRPC {where.grpc}\n"
        f"  data     {parts.place.folder}\n"
        f"  night    {night}\n"
        "  next     in a second terminal, same folder: `headrace status`, `headrace load FILE`; docs/start.md\n",
        "ready", http=where.http, grpc=where.grpc, data=str(parts.place.folder), night=settings.night_at,
        seconds=round(seconds, 1),
    )  # fmt: skip


def _addresses(settings: Settings, redis: EmbeddedRedis | None) -> Addresses:
    http, grpc = settings.http_port or free_port(), settings.grpc_port or free_port()
    scheme = "https" if settings.http_certificate else "http"
    return Addresses(
        settings.redis_url if redis is None else redis.url, f"{scheme}://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    )


def _set_environment(folder: Path, where: Addresses) -> None:
    """Set what the children read as their settings."""
    values = {
        "DATA_DIR": str(folder), "REDIS_URL": where.redis_url, "FLOW_NAME": FLOW_NAME,
        "HTTP_PORT": where.http.rpartition(":")[2], "GRPC_PORT": where.grpc.rpartition(":")[2],
        "LOG_FORMAT": "json",  # `Output` makes of it what its reader needs
    }  # fmt: skip
    os.environ.update({PREFIX + name: value for name, value in values.items()})


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
