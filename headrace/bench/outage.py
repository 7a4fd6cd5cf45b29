"""`headrace bench outage`: steady load while Redis is killed twice, an anchor switches, and Redis hangs."""

import asyncio
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis
import typer

from flows.log.open_log import open_log
from headrace.bench.histories import append_views
from headrace.bench.serve import train
from headrace.bench.up import NotStarted, everything_up, machine, print_figures
from headrace.console import FAILED, OK, UNAVAILABLE, err
from headrace.options import Json
from headrace.torture.faulty_proxy import Fault, FaultyProxy
from state.embedded_redis import EmbeddedRedis, RedisMissing
from state.rows import keys

N_USERS, N_ITEMS, N_EVENTS = 20_000, 5_000, 200_000
CONNECTIONS = 16
GIVE_UP_S = 5.0
WANTED_MS, HANG_WANTED_MS = 100.0, 150.0
HANGS: tuple[Literal["stop"] | Fault, ...] = ("stop", "swallow", "delay", "cut")
BEFORE_S, AFTER_S = 2.0, 5.0
"""How long the load lasts before a hang and after it."""
GRAPHQL = b'{"query":"{recommend(user: \\"user-1\\", count: 10) {items {item} fallback} }"}'
OTHERS: tuple[tuple[bytes, bytes], ...] = (
    (b"GET /v1/items/item-1/similar", b""), (b"GET /v1/popular?count=10", b""),
    (b"GET /v1/popular?scope=category&name=c1", b""), (b"POST /graphql", GRAPHQL),
    (b"POST /v1/recommend/batch", b'{"requests":[{"user":"user-1"},{"user":"user-2"},{"session":"s"}]}'),
    (b"GET /healthz", b""), (b"GET /readyz", b""),
)  # fmt: skip
"""What every other request of a hang asks: an answer, or a 503 that says when to come again."""


class _Load:
    """Requests at a fixed rate over kept-alive connections; each is timed from when it was due."""

    def __init__(self, url: str, rps: float, seconds: float, mixed: bool = False) -> None:
        """`mixed`: every other request is one of OTHERS."""
        self._mixed = mixed
        parts = urlsplit(url)
        self._host, self._port, self._rps, self._seconds = parts.hostname or "", parts.port or 0, rps, seconds
        self.times_ms: list[float] = []
        self.slow_at: list[float] = []
        """When answers were due that took longer than WANTED_MS."""
        self.started = 0.0
        self.unanswered: list[str] = []
        """Of each request without a full answer, why."""
        self.levels: list[tuple[float, str]] = []
        """When an answer came, and its place on the fallback ladder."""

    async def run(self) -> None:
        due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        workers = [asyncio.create_task(self._worker(due, seed)) for seed in range(CONNECTIONS)]
        self.started = started = time.perf_counter()
        for n in range(int(self._rps * self._seconds)):
            at = started + n / self._rps
            await asyncio.sleep(max(at - time.perf_counter(), 0))
            due.put_nowait((n, at))
        for _ in workers:
            due.put_nowait(None)
        await asyncio.gather(*workers)

    async def _worker(self, due: "asyncio.Queue[tuple[int, float] | None]", seed: int) -> None:
        rng, connection = np.random.default_rng(seed), None
        while (what := await due.get()) is not None:
            n, at = what
            try:
                connection = connection or await asyncio.open_connection(self._host, self._port)
                async with asyncio.timeout(GIVE_UP_S):
                    if self._mixed and n % 2:
                        await self._ask_other(*connection, *OTHERS[n // 2 % len(OTHERS)])
                    else:
                        level = await self._ask(*connection, int(rng.integers(N_USERS)))
                        self.levels.append((time.perf_counter(), level))
                self.times_ms.append((time.perf_counter() - at) * 1000)
                if self.times_ms[-1] > WANTED_MS:
                    self.slow_at.append(at)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.unanswered.append(f"{type(error).__name__}: {error}")
                connection = None

    async def _ask(self, reader: Any, writer: Any, user: int) -> str:
        """Ask for a list; return the place on the fallback ladder it comes from."""
        body = orjson.dumps({"user": f"user-{user}", "count": 10})
        head, content = await self._exchange(reader, writer, b"POST /v1/recommend", body)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head.split(b"\r\n")[0].decode())
        answer = orjson.loads(content)
        if len(answer["items"]) != 10:
            raise ValueError("the list is not full")
        return str(answer["fallback"])

    async def _ask_other(self, reader: Any, writer: Any, what: bytes, body: bytes) -> None:
        head, _ = await self._exchange(reader, writer, what, body)
        if not head.startswith(b"HTTP/1.1 200") and not (head.startswith(b"HTTP/1.1 503") and b"etry-" in head):
            raise ValueError(f"{what.decode()}: {head[:12].decode()}")

    async def _exchange(self, reader: Any, writer: Any, what: bytes, body: bytes) -> tuple[bytes, bytes]:
        more = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        writer.write(b"%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s" % (what, more, body))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return head, await reader.readexactly(length)


async def _play(load: _Load, server: EmbeddedRedis, older: bytes, seconds: float, away_s: float) -> list[float]:
    """Run the load; at a fifth and three fifths Redis is killed, between them the anchor moves.

    Return when Redis was back.
    """
    loading, back = asyncio.create_task(load.run()), list[float]()
    for part in range(2):
        await asyncio.sleep(seconds / 5)
        await asyncio.to_thread(server.kill)  # the load goes on meanwhile
        await asyncio.sleep(away_s)
        await asyncio.to_thread(server.start)
        back.append(time.perf_counter())
        if part == 0:
            await asyncio.sleep(seconds / 10)
            client: Any = redis.Redis.from_url(server.url)
            await asyncio.to_thread(client.set, keys.ANCHOR_PUBLISHED, older)
            await asyncio.sleep(seconds / 10)
    await loading
    return back


async def _hang(
    load: _Load, fault: Literal["stop"] | Fault, server: EmbeddedRedis, proxy: FaultyProxy, away_s: float
) -> float:
    """Run the load while Redis hangs for a while; return when that was over."""
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(BEFORE_S)
    if fault == "stop":
        _signal(server, signal.SIGSTOP)
    else:
        await asyncio.to_thread(proxy.play, fault)
    await asyncio.sleep(away_s)
    if fault == "stop":
        _signal(server, signal.SIGCONT)
    else:
        await asyncio.to_thread(proxy.play, None)
    over = time.perf_counter()
    await loading
    return over


def _signal(server: EmbeddedRedis, number: signal.Signals) -> None:
    assert server.process is not None
    server.process.send_signal(number)


def _hang_figures(fault: str, load: _Load, over: float) -> dict[str, Any]:
    times = np.array(load.times_ms)
    return {
        "fault": fault,
        "answered": len(times),
        "unanswered": len(load.unanswered),
        "unanswered_because": {why: load.unanswered.count(why) for why in sorted(set(load.unanswered))},
        "within_150ms": float((times <= HANG_WANTED_MS).sum() / max(len(times) + len(load.unanswered), 1)),
        "max_ms": float(times.max()),
        "recovered_s": _recovered_s(load, over),
    }


def _recovered_s(load: _Load, at: float) -> float:
    """Return how long after a time the first full answer came."""
    first = next((when for when, level in load.levels if when > at and level == "personalised"), None)
    return float("inf") if first is None else first - at


def _figures(load: _Load, back: list[float]) -> dict[str, Any]:
    times = np.array(load.times_ms)
    recovered = [_recovered_s(load, at) for at in back]
    levels = [level for _, level in load.levels]
    return {
        "answered": len(times),
        "unanswered": len(load.unanswered),
        "unanswered_because": {why: load.unanswered.count(why) for why in sorted(set(load.unanswered))},
        "within_100ms": float((times <= WANTED_MS).sum() / max(len(times) + len(load.unanswered), 1)),
        "recovered_s": max(recovered),
        "p50_ms": float(np.median(times)),
        "p99_ms": float(np.quantile(times, 0.99)),
        "max_ms": float(times.max()),
        "redis_back_at_s": [round(at - load.started, 1) for at in back],
        "slow_at_s": sorted({round(at - load.started, 1) for at in load.slow_at}),
        "answers_by_level": {level: levels.count(level) for level in sorted(set(levels))},
    }


def run(rps: float, seconds: float, away_s: float, json: bool) -> int:
    """Start everything, train two anchors, play the outage, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        address = f"sqlite:{name}/log.sqlite"
        log = open_log(address)
        append_views(log, N_EVENTS, N_USERS, N_ITEMS, np.random.default_rng(3))
        end = log.end()
        log.close()
        try:
            with (
                EmbeddedRedis(Path(name) / "redis") as server,
                FaultyProxy(server.url) as proxy,
                everything_up(Path(name), address, proxy.url) as running,
            ):
                client: Any = redis.Redis.from_url(server.url)
                with err.status("folding the past and training two anchors"):
                    running.wait_until_folded(end)
                    train(running)
                    older = client.get(keys.ANCHOR_LIVE)
                    train(running)
                    while client.get(keys.ANCHOR_LIVE) == older:
                        time.sleep(0.2)
                    time.sleep(12)  # the server has written its copy
                load = _Load(running.where["http"], rps, seconds)
                with err.status(f"{rps:.0f} requests/s for {seconds:.0f} s"):
                    back = asyncio.run(_play(load, server, older, seconds, away_s))
                switched = client.get(keys.ANCHOR_LIVE) == older
                hangs = []
                for fault in HANGS:
                    hanging = _Load(running.where["http"], rps, BEFORE_S + away_s + AFTER_S, mixed=True)
                    with err.status(f"Redis hangs for {away_s:.0f} s: {fault}"):
                        over = asyncio.run(_hang(hanging, fault, server, proxy, away_s))
                    hangs.append(_hang_figures(fault, hanging, over))
        except (NotStarted, RedisMissing) as error:
            err.print(str(error), markup=False)
            return UNAVAILABLE if isinstance(error, RedisMissing) else FAILED
    figures = _figures(load, back) | {
        "anchor_switched": switched,
        "hangs": hangs,
        "requests_per_s": rps,
        "redis_away_s": away_s,
        "data": f"{N_EVENTS:,} views, Zipf, {N_USERS:,} users x {N_ITEMS:,} items, 10 items an answer",
        "load": "timed from when a request was due; load, Redis and flow share the machine with the server",
        "repeats": 1,
        "machine": machine(),
    }
    if not json:
        for one in figures.pop("hangs"):
            print_figures(one, f"answers while Redis hangs: {one['fault']}", json)
    print_figures(figures, "answers while Redis is killed twice and an anchor switches", json)
    return OK


def command(
    rps: Annotated[float, typer.Option(help="Requests a second.")] = 200,
    seconds: Annotated[float, typer.Option(help="How long the load lasts.")] = 60,
    away: Annotated[float, typer.Option(help="Seconds Redis stays away each time.")] = 5,
    json: Json = False,
) -> None:
    """Steady load while Redis is killed twice and hangs in four ways, and an anchor switches."""
    raise typer.Exit(run(rps, seconds, away, json))
