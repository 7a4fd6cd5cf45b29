"""`headrace bench replay`: a full-speed replay beside a live server, and what the server's readers notice."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import redis
import typer

from flows.log.contract import Log
from flows.log.open_log import open_log
from headrace.bench.freshness import Client, steadily, until_visible
from headrace.bench.histories import append_views
from headrace.bench.up import HEADRACE, START_S, NotStarted, Running, everything_up, machine, print_figures
from headrace.console import FAILED, OK, err
from headrace.options import Json

N_USERS, N_ITEMS = 100_000, 20_000
CALM_S = 5.0
WITHOUT_SPARE_S = 2.0
"""After a restart: the new process is at work, and `headrace up` has no other ready yet."""


class _Readers:
    """Steady requests in the background; their times, in seconds."""

    def __init__(self, url: str, rps: float) -> None:
        self.times: list[float] = []
        self._client, self._stopping = Client(url), threading.Event()
        self._thread = steadily(rps, self._stopping, self._ask)

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


def _restart(running: Running, log: Log, name: str) -> float:
    """Kill the flow; return the seconds until an event appended at that moment is in an answer."""
    os.kill(running.pid("flow"), signal.SIGKILL)
    seconds = until_visible(Client(running.where["http"]), log, name, 1, START_S)
    return seconds if seconds is not None else float("inf")


def run(n_events: int, rps: float, json: bool) -> int:
    """Start everything, fold, replay beside a live load, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        address = f"sqlite:{name}/log.sqlite"
        log = open_log(address)
        with err.status("writing the events"):
            append_views(log, n_events, N_USERS, N_ITEMS, np.random.default_rng(3))
        end = log.end()
        log.close()
        try:
            with everything_up(Path(name), address) as running:
                with err.status("folding them live"):
                    running.wait_until_folded(end)
                figures = _measure(running.environment, running.where, n_events, rps)
                log = open_log(address)
                figures["restart_to_visible_s"] = _restart(running, log, "after-the-restart")
                time.sleep(WITHOUT_SPARE_S)
                figures["restart_without_spare_to_visible_s"] = _restart(running, log, "after-another")
                log.close()
        except NotStarted as error:
            err.print(str(error), markup=False)
            return FAILED
    figures |= {
        "data": f"views, Zipf, {N_USERS:,} users x {N_ITEMS:,} items, from the first event on",
        "repeats": 1,
        "machine": machine(),
    }
    print_figures(figures, "a replay beside a live server", json)
    return OK


def command(
    events: Annotated[int, typer.Option(help="Events replayed.")] = 1_000_000,
    rps: Annotated[float, typer.Option(help="Requests a second beside it.")] = 100,
    json: Json = False,
) -> None:
    """A full-speed replay beside a live server: messages a second, and what readers notice."""
    raise typer.Exit(run(events, rps, json))
