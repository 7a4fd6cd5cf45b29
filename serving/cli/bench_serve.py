"""`headrace bench serve`: answers a second and their times, over HTTP, from a warm server."""

import asyncio
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis

from flows.open_log import open_log
from serving.cli.bench_ingest import append_views
from serving.cli.bench_up import HEADRACE, NotStarted, Running, everything_up, machine, print_figures
from serving.cli.console import FAILED, OK, err
from state import keys

N_USERS, N_ITEMS, N_EVENTS = 20_000, 5_000, 200_000
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
        address = f"sqlite:{name}/log.sqlite"
        log = open_log(address)
        append_views(log, N_EVENTS, N_USERS, N_ITEMS, np.random.default_rng(3))
        end = log.end()
        log.close()
        try:
            with everything_up(Path(name), address) as running:
                with err.status("folding the past and training an anchor"):
                    running.wait_until_folded(end)
                    train(running)
                with err.status(f"{clients} clients for {seconds:.0f} s"):
                    figures = _measure(running.where, clients, seconds)
        except NotStarted as error:
            err.print(str(error), markup=False)
            return FAILED
    figures |= {
        "data": f"{N_EVENTS:,} views, Zipf, {N_USERS:,} users x {N_ITEMS:,} items, 20 items an answer, an anchor live",
        "load": "the clients, Redis and the flow share the machine with the server",
        "repeats": 1,
        "machine": machine(),
    }
    print_figures(figures, "answers over HTTP", json)
    return OK


def train(running: Running) -> None:
    """Train an anchor and wait until the server has had time to take it over."""
    subprocess.run([*HEADRACE, "anchor", "--json"], env=running.environment, check=True, capture_output=True)
    client: Any = redis.Redis.from_url(running.where["redis_url"])
    while client.get(keys.ANCHOR_LIVE) is None:
        time.sleep(0.2)
    time.sleep(1.0)
