import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.flows import REGISTRY, T0, position, rows_of, start, stop, view, wait_for, wait_until
from helpers.rich_streams import PLAIN, rich_stream

from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from flows.settings import FlowSettings, lane_settings
from headrace.settings import Settings
from schemas.events import DEAD_LETTERS, TOPICS
from schemas.json_events import encode
from schemas.registry import current_schema
from state.embedded_redis import EmbeddedRedis
from state.ports import free_port
from state.rows import keys
from state.store.redis_store import RedisStore

pytestmark = [pytest.mark.redis, pytest.mark.e2e]
N = 3000
RICH = rich_stream(9, replace(PLAIN, n_events=900, products=False))
"""What lies between the plain views: every kind of event, over months."""
END = N + N // 50 + sum(topic == "product-views" for topic, _ in RICH)


def apart(record):
    """Return a record with event ids and items of its own: the plain views name none of its categories."""
    own = {name: f"rich-{record[name]}" for name in ("event_id", "item") if name in record}
    lines = (
        {"lines": [{**line, "item": f"rich-{line['item']}"} for line in record["lines"]]} if "lines" in record else {}
    )
    return record | own | lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A log, a Redis, and the rows of an undisturbed plain loop, as generation `plain`."""
    folder = tmp_path_factory.mktemp("flow")
    log = SqliteLog(folder / "log.sqlite")
    rich = [Message(topic, b"k", encode(topic, apart(record), REGISTRY), T0) for topic, record in RICH]
    for n in range(0, N, 50):
        log.append(rich[n // 50 * len(rich) * 50 // N : (n // 50 + 1) * len(rich) * 50 // N])
        log.append([*[view(n + k) for k in range(50)], view(n), Message("ratings", b"k", b"broken", T0)])
    with EmbeddedRedis(folder / "redis") as redis:
        store = RedisStore(redis.url)
        process = start("loop", folder / "log.sqlite", redis.url, "plain")
        wait_for(store, "plain", END, process)
        stop(process)
        yield folder / "log.sqlite", redis, store, rows_of(store, "plain")


@pytest.mark.bytewax
@pytest.mark.law(n=2)
@pytest.mark.parametrize("driver", ["bytewax", "bytewax.run -w 2"])
def test_bytewax_makes_the_same_rows_and_stops_cleanly(undisturbed, driver):
    path, redis, store, expected = undisturbed
    generation = "wax" + driver[-1]
    process = start(driver, path, redis.url, generation)
    wait_for(store, generation, END, process)
    stop(process)
    assert rows_of(store, generation) == expected


@pytest.mark.bytewax
@pytest.mark.law(n=2)
def test_workers_of_bytewax_share_the_lanes_and_a_rescale_loses_and_doubles_nothing(undisturbed):
    path, redis, store, _ = undisturbed
    of_three = {"HEADRACE_N_LANES": "3"}

    def goes_to(offset, driver, generation, workers="1"):
        process = start(driver, path, redis.url, generation, **of_three, HEADRACE_FLOW_WORKERS=workers)
        for lane in range(3):
            wait_for(store, generation, offset, process, lane)
        stop(process)

    goes_to(END, "loop", "three")
    goes_to(900, "bytewax", "rescaled")
    goes_to(2000, "bytewax", "rescaled", workers="3")
    goes_to(END, "bytewax", "rescaled")
    for lane in range(3):
        assert rows_of(store, "rescaled", lane) == rows_of(store, "three", lane)


@pytest.mark.bytewax
def test_two_processes_of_bytewax_share_the_lanes(undisturbed):
    path, redis, store, _ = undisturbed
    of_two = {"HEADRACE_N_LANES": "2"}
    process = start("loop", path, redis.url, "two", **of_two)
    wait_until(lambda: all(position(store, "two", lane) == END for lane in (0, 1)))
    stop(process)
    letters = SqliteLog(path, [DEAD_LETTERS])
    before = letters.end()[f"{DEAD_LETTERS}:0"]
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    both = [
        start("bytewax.run", path, redis.url, "cluster", **of_two, BYTEWAX_PROCESS_ID=str(n),
              BYTEWAX_ADDRESSES=addresses, HEADRACE_FLOW_NAME=f"p{n}")
        for n in range(2)
    ]  # fmt: skip
    for lane in (0, 1):
        wait_for(store, "cluster", END, both[lane], lane)
    owners = store.read([keys.owner(keys.prefix("cluster", lane)) for lane in (0, 1)])
    for process in both:
        process.send_signal(signal.SIGTERM)
    for process in both:
        process.communicate(timeout=60)  # whatever its exit code: the second to end may miss the first
    assert {owner[:2] for owner in owners} == {b"p0", b"p1"}
    written = letters.end()[f"{DEAD_LETTERS}:0"] - before
    assert N // 50 <= written < 2 * (N // 50)  # not one for each lane; a block that is read again may repeat its own
    letters.close()
    for lane in (0, 1):
        assert rows_of(store, "cluster", lane) == rows_of(store, "two", lane)


@pytest.mark.bytewax
def test_bytewax_draws_the_dataflow_without_a_store():
    environment = os.environ | {"HEADRACE_REDIS_URL": "redis://127.0.0.1:9"}
    command = [sys.executable, "-m", "bytewax.visualize", "headrace.dataflow", "-o", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    steps = {step["step_id"] for step in json.loads(done.stdout)["substeps"]}
    assert steps == {
        f"headrace.{name}"
        for name in ("lanes", "decode", "refused", "dead-letters", "fold", "metrics", "freshness", "commit")
    }


@pytest.mark.parametrize("driver", ["loop", pytest.param("bytewax", marks=pytest.mark.bytewax)])
def test_a_flow_killed_again_and_again_makes_the_rows_of_one_undisturbed(undisturbed, driver):
    path, redis, store, expected = undisturbed
    generation = "killed-" + driver
    for target in (300, 1100, 1900):
        process = start(driver, path, redis.url, generation)
        wait_for(store, generation, target, process)
        process.kill()
        process.communicate()
    process = start(driver, path, redis.url, generation)
    wait_for(store, generation, END, process)
    stop(process)
    assert rows_of(store, generation) == expected


SET_BACK = """
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
    if key ~= ARGV[2] then redis.call('DEL', key) end
end
for i = 3, #ARGV, 2 do redis.call('SET', ARGV[i], ARGV[i + 1]) end
"""


@pytest.mark.parametrize("driver", ["loop", pytest.param("bytewax", marks=pytest.mark.bytewax)])
def test_rows_set_back_under_a_running_flow_are_folded_again(undisturbed, driver):
    """As by a Redis that lost its last second and came back before anybody noticed, at work and at rest."""
    path, redis, store, expected = undisturbed
    generation = "back-" + driver
    prefix = keys.prefix(generation, 0)
    process = start(driver, path, redis.url, generation)
    wait_for(store, generation, 900, process)
    stop(process)
    older = rows_of(store, generation)
    set_back = [prefix, keys.owner(prefix), *(part for key, value in older.items() for part in (prefix + key, value))]
    process = start(driver, path, redis.url, generation)
    for target in (2000, END, END):
        wait_for(store, generation, target, process)
        redis.client().eval(SET_BACK, 0, *set_back)
    wait_for(store, generation, END, process)
    stop(process)
    assert rows_of(store, generation) == expected


def test_a_registry_that_is_away_is_waited_for(undisturbed):
    path, redis, store, expected = undisturbed
    asked = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            away = len(asked) <= 2
            topic = next(
                topic for topic in TOPICS if self.path.partition("?")[0] == f"/schemas/ids/{REGISTRY.id_for(topic)}"
            )
            body = b"{}" if away else json.dumps({"schema": json.dumps(current_schema(topic))}).encode()
            self.send_response(503 if away else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        process = start("loop", path, redis.url, "registry", HEADRACE_SCHEMA_REGISTRY_URL=url)
        wait_for(store, "registry", END, process)
        errors = stop(process)
        server.shutdown()
    assert errors.count("answered 503") == 2
    assert rows_of(store, "registry") == expected


def test_a_second_flow_stands_by_and_takes_over_when_the_first_dies(undisturbed):
    path, redis, store, expected = undisturbed
    first = start("loop", path, redis.url, "both")
    wait_for(store, "both", 300, first)
    second = start("loop", path, redis.url, "both", HEADRACE_FLOW_NAME="second")
    wait_for(store, "both", 900, first)
    first.kill()
    first.communicate()
    wait_for(store, "both", END, second)
    stop(second)
    assert rows_of(store, "both") == expected


def test_lanes_move_to_a_process_that_joins_and_back_when_it_leaves(undisturbed):
    path, redis, store, expected = undisturbed
    lanes = {"HEADRACE_N_LANES": "2", "HEADRACE_FLOW_NAME": "a", "HEADRACE_LEASE_S": "1"}
    first = start("loop", path, redis.url, "shared", **lanes)

    def owners():
        return store.read([keys.owner(keys.prefix("shared", lane)) for lane in (0, 1)])

    wait_until(lambda: owners() == [b"a", b"a"])
    second = start("loop", path, redis.url, "shared", **lanes | {"HEADRACE_FLOW_NAME": "b"})
    wait_until(lambda: owners() == [b"a", b"b"])
    stop(first)
    wait_until(lambda: owners() == [b"b", b"b"])
    for lane in (0, 1):
        wait_until(lambda lane=lane: position(store, "shared", lane) == END)
    stop(second)
    merged = rows_of(store, "shared", 0) | rows_of(store, "shared", 1)
    users = {key: value for key, value in expected.items() if key.startswith(b"u:")}
    assert {key: value for key, value in merged.items() if key.startswith(b"u:")} == users


def test_a_flow_without_redis_says_so_in_one_line_and_ends_with_three(tmp_path):
    environment = os.environ | {
        "HEADRACE_LOG_URL": f"sqlite:{tmp_path / 'l'}", "HEADRACE_REDIS_URL": "redis://127.0.0.1:9",
        "HEADRACE_CONNECT_TIMEOUT_S": "0.5", "HEADRACE_LOG_FORMAT": "json",
    }  # fmt: skip
    command = [sys.executable, "-m", "headrace", "flow"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    last = json.loads(done.stderr.strip().splitlines()[-1])
    assert last["level"] == "error"
    assert "127.0.0.1:9" in last["error"]


def test_lane_settings_follow_the_settings():
    settings = lane_settings(Settings(session_gap_s=60, pair_window=5))
    assert (settings.session_gap_ms, settings.pair_window) == (60_000, 5)


def test_the_fold_and_the_settings_have_the_same_defaults():
    assert lane_settings(FlowSettings()) == LaneSettings()
