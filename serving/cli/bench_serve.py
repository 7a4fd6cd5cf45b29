"""`headrace bench serve`: answers a second and their times over HTTP and gRPC, from a warm server."""

import asyncio
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import orjson
import redis

from flows.open_log import open_log
from serving.cli.bench_ingest import append_views
from serving.cli.bench_up import HEADRACE, NotStarted, Running, everything_up, machine, print_figures
from serving.cli.console import FAILED, OK, err
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.rule_book import put_book, to_book
from state import keys
from state.redis_store import RedisStore

TICKS = os.sysconf("SC_CLK_TCK")
COUNT, BATCH = 20, 100
BOOK = {"rules": [
    {"id": "no-brand", "action": "exclude", "where": "brand == 'brand-7'"},
    {"id": "boost", "action": "boost", "where": "under(category, 'department-3')", "factor": 1.2},
    {"id": "mix", "action": "cap", "by": "category", "most": 4, "first": 10},
]}  # fmt: skip
"""Rules that act on every answer of the measurement."""

Measured = tuple[list[float], int, int, float]
"""Seconds of each call, full lists, calls without one, seconds in all."""
Ask = Callable[[int], Awaitable[int]]
"""Ask for a user, return how many full lists came back."""


class _Http:
    """One kept-alive connection."""

    def __init__(self, url: str, path: str, users: int) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path, self._users = parts.hostname or "", parts.port or 0, path, users

    async def open(self) -> "_Http":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def ask(self, user: int) -> int:
        one: dict[str, Any] = {"user": f"user-{user}", "count": COUNT, "exclude": ["item-1", "item-2"]}
        many = {"requests": [{**one, "user": f"user-{(user + k) % self._users}"} for k in range(BATCH)]}
        body = orjson.dumps(many if self._path.endswith("batch") else one)
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (self._path.encode(), len(body))
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            return 0
        found = orjson.loads(content)
        return sum(len(one["items"]) == COUNT for one in found.get("answers", [found]))


async def _closed_loop(asks: list[Ask], seconds: float, users: int) -> Measured:
    """Let every client ask again and again."""
    times: list[float] = []
    full, bad, started = 0, 0, time.perf_counter()

    async def client(ask: Ask, seed: int) -> None:
        nonlocal full, bad
        rng = np.random.default_rng(seed)
        while time.perf_counter() < started + seconds:
            began = time.perf_counter()
            came = await ask(int(rng.integers(users)))
            times.append(time.perf_counter() - began)
            full, bad = full + came, bad + (came == 0)

    await asyncio.gather(*(client(ask, seed) for seed, ask in enumerate(asks)))
    return times, full, bad, time.perf_counter() - started


async def _over_http(url: str, path: str, clients: int, seconds: float, users: int) -> Measured:
    opened = [await _Http(url, path, users).open() for _ in range(clients)]
    return await _closed_loop([one.ask for one in opened], seconds, users)


def _message(user: int) -> Any:
    return headrace_pb2.RecommendRequest(user=f"user-{user}", count=COUNT, exclude=["item-1", "item-2"])


async def _over_grpc(address: str, clients: int, seconds: float, users: int) -> Measured:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = headrace_pb2_grpc.HeadraceStub(channel)  # type: ignore[no-untyped-call]

        async def ask(user: int) -> int:
            return len((await stub.Recommend(_message(user))).items) == COUNT

        return await _closed_loop([ask] * clients, seconds, users)


async def _over_stream(address: str, clients: int, seconds: float, users: int) -> Measured:
    """One stream with `clients` requests under way."""
    times: list[float] = []
    sent: asyncio.Queue[float] = asyncio.Queue(clients)
    full, started = 0, time.perf_counter()
    rng = np.random.default_rng(1)

    async def requests() -> Any:
        while time.perf_counter() < started + seconds:
            await sent.put(time.perf_counter())
            yield _message(int(rng.integers(users)))

    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = headrace_pb2_grpc.HeadraceStub(channel)  # type: ignore[no-untyped-call]
        async for answer in stub.RecommendStream(requests()):
            times.append(time.perf_counter() - sent.get_nowait())
            full += len(answer.items) == COUNT
    return times, full, len(times) - full, time.perf_counter() - started


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _stages(url: str) -> dict[str, float]:
    """Return the server's seconds by stage so far."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r'^headrace_answer_stage_seconds_total\{stage="(\w+)"\} (\S+)', text, re.M)
    return {stage: float(seconds) for stage, seconds in found}


def _measure(where: dict[str, Any], clients: int, seconds: float, users: int) -> dict[str, Any]:
    url, address = where["http"], where["grpc"]
    ways: dict[str, Callable[[float], Coroutine[Any, Any, Measured]]] = {
        "http": lambda s: _over_http(url, "/v1/recommend", clients, s, users),
        "grpc": lambda s: _over_grpc(address, clients, s, users),
        "stream": lambda s: _over_stream(address, clients, s, users),
        "batch": lambda s: _over_http(url, "/v1/recommend/batch", 2, s, users),
    }
    found: dict[str, Any] = {}
    for name, way in ways.items():
        asyncio.run(way(1.0))  # warm
        cpu, stages = _cpu_s(where["pids"]["serve"]), _stages(url)
        times, full, bad, elapsed = asyncio.run(way(seconds))
        used = _cpu_s(where["pids"]["serve"]) - cpu
        found[name] = {
            "rps": round(full / elapsed),
            "bad": bad,
            "p50_ms": round(float(np.quantile(times, 0.5)) * 1000, 2),
            "p99_ms": round(float(np.quantile(times, 0.99)) * 1000, 2),
            "server_us_per_answer": round(used / max(full, 1) * 1e6, 1),
            "answers_per_server_core_s": round(full / max(used, 1e-9)),
        }
        by_stage = {stage: (s - stages[stage]) / max(full, 1) * 1e6 for stage, s in _stages(url).items()}
        by_stage["http_json_and_the_rest"] = used / max(full, 1) * 1e6 - sum(by_stage.values())
        found[name]["us_by_stage"] = {stage: round(us, 1) for stage, us in by_stage.items()}
    return found


def run(clients: int, seconds: float, users: int, items: int, events: int, json: bool) -> int:
    """Start everything, fold a past, train an anchor, load, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        address = f"sqlite:{name}/log.sqlite"
        log = open_log(address)
        with err.status("writing the past"):
            append_views(log, events, users, items, np.random.default_rng(3))
        end = log.end()
        log.close()
        try:
            with everything_up(Path(name), address) as running:
                with err.status("folding the past and training an anchor"):
                    running.wait_until_folded(end)
                    train(running)
                    put_book(RedisStore(running.where["redis_url"]), to_book(BOOK), "bench")
                    time.sleep(1.0)
                with err.status(f"{clients} clients for {seconds:.0f} s each way"):
                    figures = _measure(running.where, clients, seconds, users)
        except NotStarted as error:
            err.print(str(error), markup=False)
            return FAILED
    figures |= {
        "clients": clients,
        "data": f"{events:,} views, Zipf, {users:,} users x {items:,} items, {COUNT} items an answer, an anchor and "
        f"{len(BOOK['rules'])} rules live, 2 items excluded by the request; batch: {BATCH} users a call, 2 callers",
        "load": "every list checked to be full; the clients, Redis and the flow share the machine with the server",
        "repeats": 1,
        "machine": machine(),
    }
    print_figures(figures, "answers over HTTP and gRPC", json)
    return OK


def train(running: Running) -> None:
    """Train an anchor and wait until the server has had time to take it over."""
    subprocess.run([*HEADRACE, "anchor", "--json"], env=running.environment, check=True, capture_output=True)
    client: Any = redis.Redis.from_url(running.where["redis_url"])
    while client.get(keys.ANCHOR_LIVE) is None:
        time.sleep(0.2)
    time.sleep(1.0)
