"""`headrace bench serve`: answers a second and their times over HTTP and gRPC, from a warm server."""

import asyncio
import gc
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import orjson
import redis
import typer

from flows.books import Books
from flows.log.open_log import open_log
from headrace.bench.grpc_load import GrpcLoad
from headrace.bench.histories import append_products, append_views
from headrace.bench.http_load import HttpLoad, Load
from headrace.bench.processes import cpu_of_redis, cpu_s, listening, pauses, pin, share, wait_until_quiet
from headrace.bench.up import HEADRACE, START_S, NotStarted, Running, everything_up, machine, median_run, print_figures
from headrace.console import FAILED, OK, err
from headrace.options import Json, Repeats, WriteCosts
from headrace.planning.costs import merge_costs
from schemas.events import BOOKS
from schemas.registry import FolderRegistry
from serving.engine.clock import now_ms
from serving.proto import headrace_pb2
from state.ports import free_port
from state.rows import keys
from state.settings import PREFIX
from state.store.redis_store import RedisStore

COUNT, BATCH = 20, 100
BATCHES = 8
"""Batches under way: with two the server waited for the load nearly half of the time, with four a third of it."""
BOOK = {"rules": [
    {"id": "no-brand", "action": "exclude", "where": "brand == 'brand-7'"},
    {"id": "boost", "action": "boost", "where": "under(category, 'department-3')", "factor": 1.2},
    {"id": "mix", "action": "cap", "by": "category", "most": 4, "first": 10},
]}  # fmt: skip
"""Rules that act on every answer of the measurement."""

Way = Callable[[float], Coroutine[Any, Any, Load]]
"""Load for some seconds."""
WARM_UP_S = 3.0
"""Load that does not count: what is said of an item is put into words when it is first said."""
SHARES = (0.5, 0.8)
"""Of the answers a second that came under closed load: offered as open load."""


class _Item(msgspec.Struct):
    item: str
    score: float


class _Answer(msgspec.Struct):
    """What is looked at of an answer: to read all of it took the load longer than the server to make it."""

    items: list[_Item] = []

    def is_full(self) -> bool:
        return len({one.item for one in self.items}) == COUNT


class _Answers(msgspec.Struct):
    answers: list[_Answer] = []


READ_ONE, READ_MANY = msgspec.json.Decoder(_Answer).decode, msgspec.json.Decoder(_Answers).decode


def _body(user: int) -> bytes:
    return orjson.dumps({"user": f"user-{user}", "count": COUNT, "exclude": ["item-1", "item-2"]})


def _load(where: dict[str, Any], users: int, batch: bool = False) -> HttpLoad:
    parts = urlsplit(where["http"])
    host, port = parts.hostname or "", parts.port or 0
    if not batch:
        return HttpLoad(host, port, "/v1/recommend", users, _body, lambda answer: READ_ONE(answer).is_full())

    def many(user: int) -> bytes:
        return b'{"requests":[%b]}' % b",".join([_body((user + k) % users) for k in range(BATCH)])

    def full(answer: bytes) -> int:
        return sum(one.is_full() for one in READ_MANY(answer).answers)

    return HttpLoad(host, port, "/v1/recommend/batch", users, many, full)


def _grpc_load(where: dict[str, Any], users: int) -> GrpcLoad:
    host, _, port = where["grpc"].rpartition(":")

    def body(user: int) -> bytes:
        asked = headrace_pb2.RecommendRequest(user=f"user-{user}", count=COUNT, exclude=["item-1", "item-2"])
        return bytes(asked.SerializeToString())

    def full(answer: bytes) -> bool:
        return len({one.item for one in headrace_pb2.Answer.FromString(answer).items}) == COUNT

    return GrpcLoad(host, int(port), users, body, full)


def _stages(url: str) -> dict[str, float]:
    """Return the server's seconds by stage so far."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r'^headrace_answer_stage_seconds_total\{stage="(\w+)"\} (\S+)', text, re.M)
    return {stage: float(seconds) for stage, seconds in found}


def _by_processes(running: Running, cores: list[int], clients: int, seconds: float, users: int) -> list[dict[str, Any]]:
    """Return answers a second over HTTP from one and from two servers on one port, everything on all cores."""
    share(cores)
    port = free_port()
    numbers = {"HTTP_PORT": str(port), "GRPC_PORT": str(free_port()), "REUSE_PORT": "true"}
    environment = running.environment | {f"{PREFIX}{name}": value for name, value in numbers.items()}
    load = _load({"http": f"http://127.0.0.1:{port}"}, users)
    servers, found = list[subprocess.Popen[bytes]](), list[dict[str, Any]]()
    try:
        for n in (1, 2):
            servers.append(subprocess.Popen([*HEADRACE, "serve"], env=environment))
            deadline = time.monotonic() + START_S
            while listening(port) < n:
                if time.monotonic() > deadline:
                    raise NotStarted("`headrace serve` did not start")
                time.sleep(0.2)
            asyncio.run(load.closed(clients, 1.0))
            came = asyncio.run(load.closed(clients, seconds))
            found.append({"processes": n, "rps": round(came.full / came.elapsed_s), "bad": came.bad})
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(START_S)
    return found


def _measure(
    where: dict[str, Any], clients: int, seconds: float, users: int, rate: float, repeats: int
) -> dict[str, Any]:
    ways: dict[str, Way] = {
        "http": lambda s: _load(where, users).closed(clients, s),
        "grpc": lambda s: _grpc_load(where, users).calls(clients, s),
        "stream": lambda s: _grpc_load(where, users).stream(clients, s),
        "batch": lambda s: _load(where, users, batch=True).closed(BATCHES, s),
    }
    found: dict[str, Any] = {}
    for name, way in ways.items():
        found[name] = _measured(where, way, seconds, repeats)
    rates = [rate] if rate else [round(share * found["http"]["rps"]) for share in SHARES]
    found["open"] = [
        {
            "offered": one,
            **_measured(where, partial(_load(where, users).open, one, 2 * clients), seconds, repeats, "p99_ms"),
        }
        for one in rates
    ]
    return found


def _measured(where: dict[str, Any], way: Way, seconds: float, repeats: int, by: str = "rps") -> dict[str, Any]:
    """Return the figures of the run of one way with the median of one, after a while that does not count."""
    asyncio.run(way(WARM_UP_S))
    gc.collect()
    gc.freeze()  # what is there now is no garbage of the load: to look at it again would be time of answers
    return median_run([_measured_once(where, way, seconds) for _ in range(repeats)], by, "server_us_per_answer")


def _measured_once(where: dict[str, Any], way: Way, seconds: float) -> dict[str, Any]:
    url, pid = where["http"], where["pids"]["serve"]
    client: Any = redis.Redis.from_url(where["redis_url"])
    cpu, stages, of_redis = cpu_s(pid), _stages(url), cpu_of_redis(client)
    load = asyncio.run(way(seconds))
    used, n = cpu_s(pid) - cpu, max(load.full, 1)
    by_stage = {stage: (s - stages[stage]) / n * 1e6 for stage, s in _stages(url).items()}
    by_stage["http_json_and_the_rest"] = used / n * 1e6 - sum(by_stage.values())
    return {
        "rps": round(load.full / load.elapsed_s),
        "bad": load.bad,
        "p50_ms": round(float(np.quantile(load.times_s, 0.5)) * 1000, 2),
        "p99_ms": round(float(np.quantile(load.times_s, 0.99)) * 1000, 2),
        "server_us_per_answer": round(used / n * 1e6, 1),
        "answers_per_server_core_s": round(load.full / max(used, 1e-9)),
        "redis_us_per_answer": round((cpu_of_redis(client) - of_redis) / n * 1e6, 1),
        "us_by_stage": {stage: round(us, 1) for stage, us in by_stage.items()},
    }


def run(
    clients: int, seconds: float, users: int, items: int, events: int, rate: float, repeats: int,
    costs: Path | None, json: bool,
) -> int:  # fmt: skip
    """Start everything, fold a past, train an anchor, load, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        address = f"sqlite:{name}/log.sqlite"
        log = open_log(address)
        with err.status("writing the past"):
            append_products(log, items)
            append_views(log, events, users, items, np.random.default_rng(3))
        end = log.end()
        log.close()
        try:
            with everything_up(Path(name), address) as running:
                with err.status("folding the past and training an anchor"):
                    running.wait_until_folded(end)
                    train(running)
                    store, open_books = RedisStore(running.where["redis_url"]), partial(open_log, address, [BOOKS])
                    Books(store, open_books, FolderRegistry()).put(BOOK, "bench", now_ms())
                    wait_until_quiet(running.where["pids"].values())  # users' vectors follow the anchor; rows are read
                with err.status(f"{clients} clients for {seconds:.0f} s each way, {repeats} times"):
                    cores = sorted(os.sched_getaffinity(0))
                    paused = pauses(cores[0])
                    said = pin(running.where["pids"]["serve"], cores)
                    figures = _measure(running.where, clients, seconds, users, rate, repeats)
                    figures["answer_bytes"] = _answer_bytes(running.where["http"])
                    figures["processes"] = _by_processes(running, cores, clients, seconds, users)
        except NotStarted as error:
            err.print(str(error), markup=False)
            return FAILED
    figures |= {
        "clients": clients,
        "data": f"{events:,} views, Zipf, {users:,} users x {items:,} items, {COUNT} items an answer, an anchor and "
        f"{len(BOOK['rules'])} rules live, 2 items excluded by the request; "
        f"batch: {BATCH} users a call, {BATCHES} callers",
        "load": f"every list checked to be full; {said}; open: random arrivals, time counted from when each was due",
        "repeats": repeats,
        "pauses_of_the_machine": paused,
        "machine": machine(),
    }
    if costs is not None:
        values = {f"{way}_us": figures[way]["server_us_per_answer"] for way in ("http", "grpc", "stream", "batch")}
        values |= {"redis_us": figures["http"]["redis_us_per_answer"], "answer_bytes": figures["answer_bytes"]}
        merge_costs(costs, "serving", {**values, "data": f"headrace bench serve, {figures['data']}; {machine()}"})
    print_figures(figures, "answers over HTTP and gRPC", json)
    return OK


def _answer_bytes(url: str) -> int:
    """Return the size of an answer to one of the load's requests."""
    request = urllib.request.Request(f"{url}/v1/recommend", _body(1), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return len(answer.read())


def train(running: Running) -> None:
    """Train an anchor and wait until the server has had time to take it over."""
    subprocess.run([*HEADRACE, "anchor", "--json"], env=running.environment, check=True, capture_output=True)
    client: Any = redis.Redis.from_url(running.where["redis_url"])
    while client.get(keys.ANCHOR_LIVE) is None:
        time.sleep(0.2)
    time.sleep(1.0)


def command(
    clients: Annotated[int, typer.Option(help="Connections that ask again and again.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long to measure each way.")] = 10,
    users: Annotated[int, typer.Option(help="Users.")] = 1_000_000,
    items: Annotated[int, typer.Option(help="Items.")] = 200_000,
    events: Annotated[int, typer.Option(help="Events folded before.")] = 3_000_000,
    rate: Annotated[float, typer.Option(help="Open load, requests a second; 0: half and 4/5 of what came.")] = 0,
    repeats: Repeats = 3,
    costs: WriteCosts = None,
    json: Json = False,
) -> None:
    """Answers a second over HTTP, gRPC, a gRPC stream and batches; their times; the server's CPU for each."""
    raise typer.Exit(run(clients, seconds, users, items, events, rate, repeats, costs, json))
