"""`headrace bench replay`: a full-speed replay beside a live server, and what the server's readers notice."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import redis
from rich.console import Console
from rich.table import Table

from flows.open_log import open_log
from serving.cli.bench_freshness import START_S, _Client, _steadily, _until_visible
from serving.cli.bench_ingest import _append
from serving.cli.console import FAILED, OK, err, print_json
from serving.cli.up import RUN_FILE
from state import keys
from state.settings import PREFIX
from state.store import decode_positions

N_USERS, N_ITEMS = 100_000, 20_000
CALM_S = 5.0
HEADRACE = [sys.executable, "-m", "serving.cli.main"]


class _Readers:
    """Steady requests in the background; their times, in seconds."""

    def __init__(self, url: str, rps: float) -> None:
        self.times: list[float] = []
        self._client, self._stopping = _Client(url), threading.Event()
        self._thread = _steadily(rps, self._stopping, self._ask)

    def _ask(self, n: int) -> None:
        for _ in range(n):
            began = time.perf_counter()
            self._client.recommend(f"user-{np.random.randint(N_USERS)}")
            self.times.append(time.perf_counter() - began)

    def take(self) -> dict[str, float]:
        """Return the quantiles since the last call, in ms."""
        times, self.times = self.times, []
        return {name: float(np.quantile(times, q)) * 1000 for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99))}

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


def _redis_p99_us(client: Any) -> dict[str, float]:
    """Return Redis' own 99th percentile of the commands a fold and a server use, in microseconds."""
    stats = client.info("latencystats")
    names = ("mset", "mget", "set", "get", "exec", "del")
    return {
        name: float(stats[f"latency_percentiles_usec_{name}"]["p99"])
        for name in names
        if f"latency_percentiles_usec_{name}" in stats
    }


def _measure(environment: dict[str, str], where: dict[str, Any], n_events: int, rps: float) -> dict[str, Any]:
    client: Any = redis.Redis.from_url(where["redis_url"])
    readers = _Readers(where["http"], rps)
    time.sleep(CALM_S)
    calm = readers.take()
    client.config_resetstat()
    with err.status("replaying"):
        command = [*HEADRACE, "replay", "shadow", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    busy, commands = readers.take(), _redis_p99_us(client)
    readers.stop()
    replayed = orjson.loads(done.stdout)
    return {
        "messages": replayed["messages"],
        "seconds": replayed["seconds"],
        "messages_per_s": replayed["messages_per_s"],
        "readers_calm": calm,
        "readers_during_replay": busy,
        "redis_p99_us": commands,
        "requests_per_s": rps,
        "events": n_events,
    }


def _restart(environment: dict[str, str], folder: Path, where: dict[str, Any]) -> float:
    """Kill the flow; return the seconds until an event appended at that moment is in an answer."""
    log = open_log(environment[f"{PREFIX}LOG_URL"])
    os.kill(where["pids"]["flow"], signal.SIGKILL)
    seconds = _until_visible(_Client(where["http"]), log, "after-the-restart", 1, START_S)
    log.close()
    return seconds if seconds is not None else float("inf")


def run(n_events: int, rps: float, json: bool) -> int:
    """Start everything, fold, replay beside a live load, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        environment = {
            **os.environ, f"{PREFIX}DATA_DIR": name, f"{PREFIX}HTTP_PORT": "0", f"{PREFIX}FLOW_METRICS_PORT": "0",
            f"{PREFIX}LOG_LEVEL": "warning", f"{PREFIX}GRPC_PORT": "0", f"{PREFIX}LOG_URL": f"sqlite:{name}/log.sqlite",
        }  # fmt: skip
        log = open_log(environment[f"{PREFIX}LOG_URL"])
        with err.status("writing the events"):
            _append(log, n_events, N_USERS, N_ITEMS, np.random.default_rng(3))
        end = log.end()
        log.close()
        supervisor = subprocess.Popen([*HEADRACE, "up"], env=environment)
        stack.callback(supervisor.wait, 60)
        stack.callback(supervisor.send_signal, signal.SIGTERM)
        deadline = time.monotonic() + START_S
        while not (folder / RUN_FILE).exists():
            if supervisor.poll() is not None or time.monotonic() > deadline:
                return FAILED
            time.sleep(0.1)
        where = orjson.loads((folder / RUN_FILE).read_bytes())
        environment[f"{PREFIX}REDIS_URL"] = where["redis_url"]
        client: Any = redis.Redis.from_url(where["redis_url"])
        with err.status("folding them live"):
            position = keys.positions(keys.prefix("g1", 0))
            while decode_positions(client.get(position)) != end:
                time.sleep(0.2)
        figures = _measure(environment, where, n_events, rps)
        figures["restart_to_visible_s"] = _restart(environment, folder, where)
    figures |= {
        "data": f"views, Zipf, {N_USERS:,} users x {N_ITEMS:,} items, from the first event on",
        "repeats": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    if json:
        print_json(figures)
    else:
        table = Table("figure", "value", title="a replay beside a live server")
        for key, value in figures.items():
            table.add_row(key, str(value))
        Console().print(table)
    return OK
