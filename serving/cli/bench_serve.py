"""`headrace bench serve`: answers a second and their times, over HTTP, from a warm server."""

import asyncio
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis
from rich.console import Console
from rich.table import Table

from flows.open_log import open_log
from serving.cli.bench_ingest import _append
from serving.cli.console import FAILED, OK, err, print_json
from serving.cli.up import RUN_FILE
from state import keys
from state.settings import PREFIX
from state.store import decode_positions

N_USERS, N_ITEMS, N_EVENTS = 20_000, 5_000, 200_000
START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def _request(user: int) -> bytes:
    body = orjson.dumps({"user": f"user-{user}", "count": 20})
    return b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def _client(host: str, port: int, until: float, seed: int, times: list[float]) -> int:
    """Ask again and again over one connection until the time is up; return how many answers were not 200."""
    reader, writer = await asyncio.open_connection(host, port)
    rng, bad = np.random.default_rng(seed), 0
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(_request(int(rng.integers(N_USERS))))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - began)
        bad += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return bad


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def _load(url: str, clients: int, seconds: float) -> tuple[list[float], int, float]:
    parts = urlsplit(url)
    times: list[float] = []
    started = time.perf_counter()
    until = started + seconds
    bad = await asyncio.gather(
        *(_client(parts.hostname or "", parts.port or 0, until, seed, times) for seed in range(clients))
    )
    return times, sum(bad), time.perf_counter() - started


def _measure(where: dict[str, Any], clients: int, seconds: float) -> dict[str, Any]:
    asyncio.run(_load(where["http"], clients, 2.0))  # warm
    pid = where["pids"]["serve"]
    cpu = _cpu_s(pid)
    times, bad, elapsed = asyncio.run(_load(where["http"], clients, seconds))
    used = _cpu_s(pid) - cpu
    p50, p99, longest = (float(np.quantile(times, q)) * 1000 for q in (0.5, 0.99, 1.0))
    return {
        "answers_per_s": round(len(times) / elapsed),
        "answers": len(times),
        "not_200": bad,
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": longest,
        "server_us_per_answer": round(used / len(times) * 1e6, 1),
        "answers_per_server_core_s": round(len(times) / used),
        "clients": clients,
    }


def run(clients: int, seconds: float, json: bool) -> int:
    """Start everything, fold a past, train an anchor, load, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {
            **os.environ, f"{PREFIX}DATA_DIR": name, f"{PREFIX}HTTP_PORT": "0", f"{PREFIX}FLOW_METRICS_PORT": "0",
            f"{PREFIX}LOG_LEVEL": "warning", f"{PREFIX}GRPC_PORT": "0", f"{PREFIX}LOG_URL": f"sqlite:{name}/log.sqlite",
        }  # fmt: skip
        log = open_log(environment[f"{PREFIX}LOG_URL"])
        _append(log, N_EVENTS, N_USERS, N_ITEMS, np.random.default_rng(3))
        end = log.end()
        log.close()
        headrace = [sys.executable, "-m", "serving.cli.main"]
        supervisor = subprocess.Popen([*headrace, "up"], env=environment)
        try:
            deadline = time.monotonic() + START_S
            while not (folder / RUN_FILE).exists():
                if supervisor.poll() is not None or time.monotonic() > deadline:
                    return FAILED
                time.sleep(0.1)
            where = orjson.loads((folder / RUN_FILE).read_bytes())
            client: Any = redis.Redis.from_url(where["redis_url"])
            with err.status("folding the past and training an anchor"):
                while decode_positions(client.get(keys.positions(keys.prefix("g1", 0)))) != end:
                    time.sleep(0.2)
                environment[f"{PREFIX}REDIS_URL"] = where["redis_url"]
                subprocess.run([*headrace, "anchor", "--json"], env=environment, check=True, capture_output=True)
                while client.get(keys.ANCHOR_LIVE) is None:
                    time.sleep(0.2)
                time.sleep(1.0)
            with err.status(f"{clients} clients for {seconds:.0f} s"):
                figures = _measure(where, clients, seconds)
        finally:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait(60)
    figures |= {
        "data": f"{N_EVENTS:,} views, Zipf, {N_USERS:,} users x {N_ITEMS:,} items, 20 items an answer, an anchor live",
        "load": "the clients, Redis and the flow share the machine with the server",
        "repeats": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    if json:
        print_json(figures)
    else:
        table = Table("figure", "value", title="answers over HTTP")
        for key, value in figures.items():
            table.add_row(key, f"{value:,.2f}" if isinstance(value, float) else str(value))
        Console().print(table)
    return OK
