"""`headrace bench ingest`: from log bytes to committed Redis rows, exactly-once commit on."""

import resource
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import redis
import typer

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.batch_sizer import BatchSizer
from flows.log.contract import Log
from flows.log.dead_letters import DeadLetters
from flows.log.open_log import open_log
from flows.runner import Intake, Runner
from flows.runtime_tuning import prepare_interpreter
from headrace.bench.engines import FlowEnded, Size, compare, print_table
from headrace.bench.histories import CHUNK, ITEM_SKEW, USER_SKEW, WARM_EVENTS, append_views, fill_histories
from headrace.bench.machine_memory import DiskFull, first_touch_us, full_page_cache
from headrace.bench.processes import cpu_of_redis
from headrace.bench.up import machine, median_run, print_figures
from headrace.console import OK, UNAVAILABLE, err, print_json
from headrace.options import Json, Repeats, WriteCosts
from headrace.planning.costs import merge_costs
from headrace.settings import Settings
from schemas.avro_decoder import Limits
from schemas.ids import hash_ids
from schemas.registry import FolderRegistry
from state.anchor import Anchor
from state.embedded_redis import EmbeddedRedis, RedisMissing
from state.rows import keys
from state.store.redis_store import RedisStore

D = 64
SLOW_TOUCH_US = 2.0
"""Of a page of fresh memory; a machine of its own takes some 0.1 to 0.5."""


def random_anchor(item_hash: Any, rng: np.random.Generator) -> Anchor:
    """Return an anchor of made factors, D of them."""
    whitened = rng.normal(0, 0.1, (len(item_hash), D)).astype(np.float32)
    order = np.argsort(item_hash)
    weights = LaneSettings().fold_params().weights
    return Anchor("bench", [], item_hash[order], whitened, np.eye(D, dtype=np.float32), 2.0, weights)


def _file_bytes(client: redis.Redis) -> int:
    return int(client.info("persistence")["aof_current_size"])


def _rewrite(client: redis.Redis) -> None:
    """Have the append-only file hold the state and nothing else, as a server has it that ran for a while."""
    for begin in (lambda: None, client.bgrewriteaof):  # one that Redis began by itself is waited for
        begin()
        time.sleep(0.1)
        while any(client.info("persistence")[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled")):
            time.sleep(0.1)


def measure(url: str, log: Log, n_events: int, n_users: int, n_items: int, n_cached: int) -> dict[str, Any]:
    """Fill Redis and the log, fold the events once, and return the figures.

    The lane keeps `n_cached` users at most; the likeliest are cached before the clock starts.
    """
    prepare_interpreter()
    rng = np.random.default_rng(7)
    user_hash = hash_ids([f"user-{n}" for n in range(n_users)])
    item_hash = hash_ids([f"item-{n}" for n in range(n_items)])
    store = RedisStore(url)
    n_cached = min(n_cached, n_users)
    most = Settings().batch_max_events
    sizes = LaneSettings(max_cached_users=n_cached + 3 * most, max_cached_items=n_items + 3 * most)
    lane = Lane(sizes, store, "bench")
    with err.status("writing full histories"):
        fill_histories(store, lane.prefix, user_hash, item_hash, rng)
    with err.status("writing the events"):
        append_views(log, WARM_EVENTS + n_events, n_users, n_items, rng)
    lane.use_anchors(random_anchor(item_hash, rng))
    runner = Runner([lane], store, Intake(FolderRegistry(), Limits(), DeadLetters(log)))
    positions = runner.open()
    with err.status("filling the lane's cache"):
        for first in range(0, max(n_cached, n_items), CHUNK):
            lane.preload(user_hash[first : min(first + CHUNK, n_cached)], item_hash[first : first + CHUNK])
    warm = log.read(positions, WARM_EVENTS, 1.0)
    assert warm is not None
    runner.fold(warm)
    runner.drain()
    size, positions = BatchSizer(most, Settings().lease_s / 2), warm.after
    client = redis.Redis.from_url(url)
    _rewrite(client)
    redis_before, rewrites_before = cpu_of_redis(client), client.info("stats")["total_forks"]
    file_before, done, n_rows, largest = _file_bytes(client), 0, 0, 0
    stages: dict[str, float] = defaultdict(float)
    started = at = time.perf_counter()
    while done < n_events:
        raw = size.read(log, positions, 1.0)
        assert raw is not None
        folding_at = time.perf_counter()
        stages["read"] += folding_at - at
        report = runner.fold(raw, behind=raw.full)
        size.observe(raw, time.perf_counter() - folding_at)
        positions, done, largest = raw.after, done + len(raw), max(largest, len(raw))
        n_rows += sum(stats.n_rows for stats in report.stats)
        for stage, seconds in report.seconds.items():
            stages["commit_beside" if stage == "commit" else stage] += seconds
        at = time.perf_counter()
    while runner.owes_vectors:
        runner.write_pending()
    runner.drain()
    stages["vectors"] = time.perf_counter() - at
    seconds = time.perf_counter() - started
    redis_s, rewrites = cpu_of_redis(client) - redis_before, client.info("stats")["total_forks"] - rewrites_before
    file_bytes = _file_bytes(client) - file_before if not rewrites else None
    users = [keys.user(lane.prefix, int(user)) for user in user_hash[:500]]
    items = [keys.item(lane.prefix, int(item)) for item in item_hash[:500]]
    per_row = [float(np.mean([client.memory_usage(key) or 0 for key in names])) for names in (users, items)]
    runner.close()
    return {
        "events": done,
        "seconds": round(seconds, 3),
        "events_per_s": round(done / seconds),
        "us_per_event": {stage: round(total / done * 1e6, 3) for stage, total in stages.items()},
        "rows_per_event": round(n_rows / done, 2),
        "largest_batch": largest,
        "redis_cpu_s": round(redis_s, 2),
        "file_bytes_per_event": file_bytes and round(file_bytes / done),
        "file_rewrites": rewrites,
        "bytes_per_user_row": round(per_row[0]),
        "bytes_per_item_row": round(per_row[1]),
        "data": f"Zipf {n_users:,} users ({USER_SKEW}) x {n_items:,} items ({ITEM_SKEW}), d={D}",
        "start": f"full histories in Redis, {n_cached:,} users cached by the lane",
        "max_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _run_once(
    log_kind: str, n_events: int, n_users: int, n_items: int, n_cached: int, page_cache: bool
) -> dict[str, Any]:
    """Return the figures of one run against servers of its own. Raises RedisMissing, DiskFull."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(EmbeddedRedis(Path(name) / "redis"))
        if page_cache:
            stack.enter_context(full_page_cache(Path(name)))
        if log_kind == "kafka":
            from headrace.torture.local_kafka import LocalKafka

            with LocalKafka(Path(name) / "kafka") as broker:
                log = open_log(f"kafka:{broker.bootstrap}")
                log.create_topics()  # type: ignore[attr-defined]
                figures = measure(server.url, log, n_events, n_users, n_items, n_cached)
                log.close()
        else:
            log = open_log(f"sqlite:{Path(name) / 'log.sqlite'}")
            figures = measure(server.url, log, n_events, n_users, n_items, n_cached)
            log.close()
    return figures


def run(
    log_kind: str, n_events: int, n_users: int, n_items: int, n_cached: int, page_cache: bool, repeats: int,
    costs: Path | None, json: bool,
) -> int:  # fmt: skip
    """Run the benchmark `repeats` times and print the median run; return the exit code."""
    runs, touch_us = [], first_touch_us()
    for n in range(repeats):
        try:
            runs.append(_run_once(log_kind, n_events, n_users, n_items, n_cached, page_cache))
        except (RedisMissing, DiskFull) as error:
            err.print(str(error), markup=False)
            return UNAVAILABLE
        err.print(f"run {n + 1} of {repeats}: {runs[-1]['events_per_s']:,} events/s")
    figures = {"log": log_kind, **median_run(runs, "events_per_s"), "repeats": repeats, "machine": machine()}
    figures |= {"page_cache": "full" if page_cache else "as it was", "first_touch_us_per_page": round(touch_us, 2)}
    if touch_us > SLOW_TOUCH_US and not page_cache:
        err.print(f"a page of fresh memory takes {touch_us:.1f} us here; --full-page-cache measures without that")
    if costs is not None:
        _write_costs(costs, figures)
    print_figures(figures, f"ingest, {log_kind} log", json)
    return OK


def _write_costs(path: Path, figures: dict[str, Any]) -> None:
    """Write what `headrace plan` multiplies: what every process pays for an event, and what its lane's pays."""
    read_us = figures["us_per_event"]["read"] + figures["us_per_event"]["decode"]
    merge_costs(path, "ingest", {
        "read_us": round(read_us, 2), "fold_us": round(1e6 / figures["events_per_s"] - read_us, 2),
        "redis_us": round(figures["redis_cpu_s"] / figures["events"] * 1e6, 2),
        "data": f"headrace bench ingest, {figures['log']} log, {figures['data']}; {figures['machine']}",
    })  # fmt: skip
    merge_costs(path, "rows", {"user": figures["bytes_per_user_row"], "item": figures["bytes_per_item_row"]})


def run_engines(driver: str, log_kind: str, size: tuple[int, int, int], repeats: int, json: bool) -> int:
    """Measure flows as processes, engine beside engine; return the exit code."""
    try:
        figures = compare(driver, log_kind, Size(*size), repeats)
    except (RedisMissing, FlowEnded) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(figures)
    else:
        print_table(figures)
    return OK


def command(
    log: Annotated[Literal["sqlite", "kafka"], typer.Option(help="kafka: a broker of its own")] = "sqlite",
    events: Annotated[int, typer.Option(help="Events measured.")] = 1_000_000,
    users: Annotated[int, typer.Option(help="Users with a full history before the clock starts.")] = 1_000_000,
    items: Annotated[int, typer.Option(help="Items.")] = 200_000,
    cached: Annotated[int, typer.Option(help="Users the lane may keep in memory.")] = 1_000_000,
    full_page_cache: Annotated[
        bool, typer.Option("--full-page-cache", help="First fill the page cache, as on a machine that ran for a day.")
    ] = False,
    driver: Annotated[
        Literal["none", "loop", "bytewax", "all"],
        typer.Option(help="Measure flow processes on an engine; none: the fold in this process, stage by stage."),
    ] = "none",
    repeats: Repeats = 3,
    costs: WriteCosts = None,
    json: Json = False,
) -> None:
    """From log bytes to committed Redis rows: events a second and microseconds by stage."""
    if driver != "none":
        raise typer.Exit(run_engines(driver, log, (events, users, items), repeats, json))
    raise typer.Exit(run(log, events, users, items, cached, full_page_cache, repeats, costs, json))
