"""Flows as processes on an embedded log and a Redis."""

import os
import signal
import subprocess
import sys
import time

from flows.log.contract import Message
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.generations import live_generation
from state.rows import keys
from state.store.contract import decode_positions
from state.store.redis_store import RedisStore

REGISTRY = FolderRegistry()
T0 = 1_700_000_000_000


def view(n, event_id=None):
    record = {"event_id": event_id or f"e{n}", "ts_ms": T0 + n * 1000, "user": f"u{n % 40}", "item": f"i{n * n % 90}"}
    return Message("product-views", b"k", encode("product-views", record, REGISTRY), T0 + n)


def start(driver, log_path, redis_url, generation, **more):
    store = RedisStore(redis_url)
    if live_generation(store) != generation:
        store.write({keys.GENERATION: None})  # the flow makes its generation the live one
    store.close()
    command = {
        "loop": [sys.executable, "-m", "headrace", "flow", "--driver", "loop"],
        "bytewax.run -w 2": [sys.executable, "-m", "bytewax.run", "headrace.dataflow", "-w", "2"],
        "bytewax.run": [sys.executable, "-m", "bytewax.run", "headrace.dataflow"],
        "bytewax": [sys.executable, "-m", "headrace", "flow"],
    }[driver]
    environment = os.environ | {
        "HEADRACE_LOG_URL": f"sqlite:{log_path}", "HEADRACE_REDIS_URL": redis_url, "HEADRACE_GENERATION": generation,
        "HEADRACE_FLOW_METRICS_PORT": "0", "HEADRACE_MAX_CACHED_USERS": "5000", "HEADRACE_MAX_CACHED_ITEMS": "5000",
        "HEADRACE_BATCH_MAX_EVENTS": "100", "HEADRACE_DEDUPE_WINDOW": "8192", "HEADRACE_FLOW_NAME": driver,
    } | more  # fmt: skip
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def rows_of(store, generation, lane=0):
    prefix = keys.prefix(generation, lane)
    found = [key for chunk in store.scan(prefix) for key in chunk if key != keys.owner(prefix)]
    return {key[len(prefix) :]: value for key, value in zip(found, store.read(found), strict=True)}


def position(store, generation, lane=0):
    """Look at the positions without taking the lane over."""
    return decode_positions(store.read([keys.positions(keys.prefix(generation, lane))])[0]).get("product-views:0", 0)


def wait_until(true):
    deadline = time.monotonic() + 240  # it may have kernels to compile
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def wait_for(store, generation, offset, process=None, lane=0):
    deadline = time.monotonic() + 240  # it may have kernels to compile
    while position(store, generation, lane) < offset:
        assert time.monotonic() < deadline, "the flow did not get there in time"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def stop(process):
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    return errors
