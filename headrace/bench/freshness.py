"""`headrace bench freshness`: from the append of an event to the first answer that reflects it."""

import contextlib
import http.client
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import orjson
import typer

from flows.log.contract import Log, Message
from flows.log.open_log import open_log
from headrace.bench.up import START_S, NotStarted, everything_up, machine, print_figures
from headrace.console import FAILED, OK, err
from headrace.options import Json
from schemas.json_events import encode
from schemas.registry import FolderRegistry

N_USERS, N_ITEMS, WARM_UP = 20_000, 5_000, 50_000
TICK_S = 0.02
PROBE_EVERY_S = 0.05
PATIENCE_S = 10.0
REGISTRY = FolderRegistry()


class Client:
    """One kept-alive connection to the server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)

    def recommend(self, user: str) -> dict[str, Any]:
        """Return the answer to a user's request."""
        body, headers = orjson.dumps({"user": user, "count": 5}), {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/recommend", body, headers)
        return dict(orjson.loads(self._connection.getresponse().read()))


def _view(event_id: str, user: str, item: int) -> Message:
    now_ms = time.time_ns() // 1_000_000
    record = {
        "event_id": event_id, "ts_ms": now_ms, "user": user, "session": None, "item": f"item-{item}", "price": 9.5,
        "category": f"department-{item % 20}", "brand": f"brand-{item % 100}", "country": "DE", "context": {},
    }  # fmt: skip
    return Message("product-views", user.encode(), encode("product-views", record, REGISTRY), now_ms)


def steadily(per_s: float, stopping: threading.Event, act: Callable[[int], None]) -> threading.Thread:
    """Call `act(how many are due)` every tick until `stopping`, so that `per_s` come about; return the thread."""

    def run() -> None:
        started, done = time.perf_counter(), 0
        while not stopping.wait(TICK_S):
            due = int((time.perf_counter() - started) * per_s) - done
            if due > 0:
                act(due)
                done += due

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _measure(log: Log, url: str, rate: float, rps: float, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    sent, answered, missed = [0], [], 0
    load, stopping = Client(url), threading.Event()

    def events(n: int) -> list[Message]:
        items = np.minimum(rng.zipf(1.3, n), N_ITEMS)
        users = rng.integers(0, N_USERS, n)
        return [_view(f"load-{sent[0] + i}", f"user-{users[i]}", int(items[i])) for i in range(n)]

    def append(n: int) -> None:
        log.append(events(n))
        sent[0] += n

    def ask(n: int) -> None:
        for _ in range(n):
            began = time.perf_counter()
            load.recommend(f"user-{np.random.randint(N_USERS)}")
            answered.append(time.perf_counter() - began)

    with err.status("a past for the shop"):
        for _ in range(WARM_UP // 5_000):
            append(5_000)
    probe = Client(url)
    until_visible(probe, log, "warm-up", 1, START_S)
    sent[0] = 0
    started = time.perf_counter()
    threads = [steadily(rate, stopping, append), steadily(rps, stopping, ask)]
    found: list[float] = []
    with err.status(f"{rate:,.0f} events/s and {rps:,.0f} requests/s for {seconds:.0f} s"):
        while time.perf_counter() - started < seconds:
            took = until_visible(probe, log, f"probe-{len(found) + missed}", int(rng.integers(1, 100)), PATIENCE_S)
            if took is None:
                missed += 1
            else:
                found.append(took)
            time.sleep(PROBE_EVERY_S * rng.uniform(0.5, 1.5))
    elapsed = time.perf_counter() - started
    stopping.set()
    for thread in threads:
        thread.join()
    quantiles = [float(np.quantile(found, q)) * 1000 for q in (0.5, 0.99, 1.0)] if found else [None] * 3
    return {
        "p50_ms": quantiles[0],
        "p99_ms": quantiles[1],
        "max_ms": quantiles[2],
        "probes": len(found),
        "missed": missed,
        "events_per_s": round(sent[0] / elapsed),
        "requests_per_s": round(len(answered) / elapsed),
        "request_p50_ms": float(np.quantile(answered, 0.5)) * 1000 if answered else None,
        "request_p99_ms": float(np.quantile(answered, 0.99)) * 1000 if answered else None,
        "seconds": round(elapsed, 1),
    }


def until_visible(client: Client, log: Log, user: str, item: int, patience_s: float) -> float | None:
    """Append a first event of `user`; return the seconds until an answer is made from it, None if it never was."""
    began = time.perf_counter()
    log.append([_view(f"event-of-{user}", user, item)])
    while time.perf_counter() - began < patience_s:
        if client.recommend(user)["fallback"] == "personalised":
            return time.perf_counter() - began
    return None


def run(rate: float, rps: float, seconds: float, log_kind: str, json: bool) -> int:
    """Start everything in a folder of its own, measure, print; return the exit code."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        address = f"sqlite:{name}/log.sqlite"
        if log_kind == "kafka":
            from headrace.torture.local_kafka import LocalKafka

            address = f"kafka:{stack.enter_context(LocalKafka(Path(name) / 'kafka')).bootstrap}"
            log = open_log(address)
            log.create_topics()  # type: ignore[attr-defined]
            log.close()
        try:
            running = stack.enter_context(everything_up(Path(name), address))
        except NotStarted as error:
            err.print(str(error), markup=False)
            return FAILED
        log = open_log(address)
        figures = _measure(log, running.where["http"], rate, rps, seconds)
        log.close()
    figures |= {
        "log": log_kind,
        "data": f"views of {N_USERS:,} users on {N_ITEMS:,} items, {WARM_UP:,} before the clock starts",
        "probe": "first event of a new user until /v1/recommend answers from it, asked again and again",
        "repeats": 1,
        "machine": machine(),
    }
    print_figures(figures, "freshness: append to first answer that reflects it", json)
    return OK


def command(
    rate: Annotated[float, typer.Option(help="Events a second while measuring.")] = 1000,
    rps: Annotated[float, typer.Option(help="Requests a second while measuring.")] = 100,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20,
    log: Annotated[Literal["sqlite", "kafka"], typer.Option(help="kafka: a broker of its own")] = "sqlite",
    json: Json = False,
) -> None:
    """From the append of an event to the first answer that reflects it, in milliseconds."""
    raise typer.Exit(run(rate, rps, seconds, log, json))
