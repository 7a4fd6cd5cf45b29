"""The fold by each engine: real flow processes on a log of made events, all at once and one at a time.

A flow is started on full histories, folds some events to be warm, and is stopped while the measured ones are appended;
so the clock covers reading, folding and committing, and no start.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.log.contract import Log, Message
from flows.log.open_log import open_log
from headrace.bench.histories import WARM_EVENTS, append_views, fill_histories
from headrace.bench.processes import cpu_s
from headrace.bench.up import HEADRACE, machine, median_run
from headrace.console import err
from headrace.settings import OWN_PARTS
from schemas.ids import hash_ids, key_in_use
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.embedded_redis import EmbeddedRedis
from state.generations import live_generation
from state.rows import keys
from state.settings import PREFIX
from state.store.contract import Positions, decode_positions
from state.store.redis_store import RedisStore

ENGINES: dict[str, tuple[int, tuple[str, ...]]] = {
    "loop": (1, ("--driver", "loop")),
    "bytewax": (1, ("--driver", "bytewax")),
    "bytewax, 2 workers": (2, ("--driver", "bytewax", "--workers", "2")),
}
"""By engine: the number of lanes, and the arguments of `headrace flow`."""
OF_DRIVER = {
    "loop": ["loop"], "bytewax": ["bytewax", "bytewax, 2 workers"], "all": list(ENGINES),
}  # fmt: skip
GENERATION = "g1"
N_ALONE = 200
PAUSE_S = 0.01
PATIENCE_S = 600.0


class Size(NamedTuple):
    """How much is folded, and by whom it was made."""

    events: int
    users: int
    items: int


class FlowEnded(Exception):
    """The flow that was measured ended."""


class _Lanes:
    """The positions of all lanes, as they are committed."""

    def __init__(self, store: RedisStore, n_lanes: int, flow: subprocess.Popen[bytes]) -> None:
        self._store, self._flow = store, flow
        self._keys = [keys.positions(keys.prefix(GENERATION, lane)) for lane in range(n_lanes)]

    def wait_for(self, end: Positions, pause_s: float) -> None:
        """Wait until every lane has committed what lies before `end`. Raises FlowEnded."""
        deadline = time.monotonic() + PATIENCE_S
        while any({**(at := decode_positions(found)), **end} != at for found in self._store.read(self._keys)):
            if self._flow.poll() is not None or time.monotonic() > deadline:
                raise FlowEnded("the flow ended, or did not get through in time")
            time.sleep(pause_s)


@contextmanager
def _log_of(kind: str, folder: Path) -> Iterator[tuple[str, Log]]:
    """Give a log of its own and its address."""
    with ExitStack() as stack:
        address = f"sqlite:{folder / 'log.sqlite'}"
        if kind == "kafka":
            from headrace.torture.local_kafka import LocalKafka

            address = f"kafka:{stack.enter_context(LocalKafka(folder / 'kafka')).bootstrap}"
        log = open_log(address)
        stack.callback(log.close)
        if kind == "kafka":
            log.create_topics()  # type: ignore[attr-defined]
        yield address, log


def measure(engine: str, log_kind: str, size: Size) -> dict[str, Any]:
    """Return the figures of one engine on servers of its own. Raises RedisMissing, FlowEnded."""
    n_lanes, arguments = ENGINES[engine]
    rng = np.random.default_rng(7)
    users, items = (hash_ids([f"{kind}-{n}" for n in range(many)]) for kind, many in zip(
        ("user", "item"), size[1:], strict=True
    ))  # fmt: skip
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        address, log = stack.enter_context(_log_of(log_kind, folder))
        store = RedisStore(server.url)
        stack.callback(store.close)
        for lane in range(n_lanes):
            mine = users[users % np.uint64(n_lanes) == lane]
            fill_histories(store, keys.prefix(GENERATION, lane), mine, items, rng)
        environment = os.environ | OWN_PARTS | {
            f"{PREFIX}LOG_URL": address, f"{PREFIX}REDIS_URL": server.url, f"{PREFIX}N_LANES": str(n_lanes),
            f"{PREFIX}FLOW_METRICS_PORT": "0", f"{PREFIX}DATA_DIR": str(folder), f"{PREFIX}LOG_LEVEL": "warning",
            f"{PREFIX}GENERATION": GENERATION, f"{PREFIX}ID_KEY": key_in_use().hex(),
        }  # fmt: skip
        append_views(log, WARM_EVENTS, size.users, size.items, rng)
        flow = subprocess.Popen([*HEADRACE, "flow", *arguments], env=environment)
        stack.callback(_end, flow)
        lanes = _Lanes(store, n_lanes, flow)
        lanes.wait_for(_filled(log), 0.05)
        assert live_generation(store) == GENERATION
        flow.send_signal(signal.SIGSTOP)
        append_views(log, size.events, size.users, size.items, rng, WARM_EVENTS)
        used, started = cpu_s(flow.pid), time.perf_counter()
        flow.send_signal(signal.SIGCONT)
        lanes.wait_for(_filled(log), 0.005)
        seconds, used = time.perf_counter() - started, cpu_s(flow.pid) - used
        alone = _fold_alone(log, lanes)
    return {
        "engine": engine, "lanes": n_lanes, "events": size.events, "events_per_s": round(size.events / seconds),
        "cpu_us_per_event": round(used / size.events * 1e6, 2),
        "alone_ms_p50": round(float(np.percentile(alone, 50)) * 1000, 2),
        "alone_ms_p99": round(float(np.percentile(alone, 99)) * 1000, 2),
    }  # fmt: skip


def _filled(log: Log) -> Positions:
    return {stream: end for stream, end in log.end().items() if end}


def _end(flow: subprocess.Popen[bytes]) -> None:
    flow.send_signal(signal.SIGCONT)
    flow.send_signal(signal.SIGTERM)
    flow.wait(60)


def _fold_alone(log: Log, lanes: _Lanes) -> list[float]:
    """Append events one at a time; return the seconds from each append's begin to its commit in every lane."""
    registry, found = FolderRegistry(), []
    for n in range(N_ALONE):
        now_ms = time.time_ns() // 1_000_000
        record = {"event_id": f"alone-{n}", "ts_ms": now_ms, "user": f"user-{n}", "item": f"item-{n % 50}"}
        message = Message("product-views", b"", encode("product-views", record, registry), now_ms)
        started = time.perf_counter()
        log.append([message])
        lanes.wait_for(_filled(log), 0.0002)
        found.append(time.perf_counter() - started)
        time.sleep(PAUSE_S)
    return found


def compare(driver: str, log_kind: str, size: Size, repeats: int) -> dict[str, Any]:
    """Return the median run of each engine of a driver, engines in turn. Raises RedisMissing, FlowEnded."""
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in OF_DRIVER[driver]}
    for n in range(repeats):
        for engine, found in runs.items():
            found.append(measure(engine, log_kind, size))
            err.print(f"run {n + 1} of {repeats}, {engine}: {found[-1]['events_per_s']:,} events/s")
    engines = [median_run(found, "events_per_s") for found in runs.values()]
    return {
        "log": log_kind, "engines": engines, "repeats": repeats, "machine": machine(),
        "data": f"Zipf {size.users:,} users x {size.items:,} items",
        "start": f"full histories in Redis, {WARM_EVENTS:,} events folded before",
    }  # fmt: skip


def print_table(figures: dict[str, Any]) -> None:
    """Print the engines beside one another."""
    names: Sequence[str] = ("engine", "lanes", "events_per_s", "cpu_us_per_event", "alone_ms_p50", "alone_ms_p99")
    table = Table(*names, title=f"the fold by engine, {figures['log']} log, {figures['repeats']} runs")
    for one in figures["engines"]:
        table.add_row(*(f"{one[name]:,}" if name != "engine" else one[name] for name in names))
    Console().print(table)
