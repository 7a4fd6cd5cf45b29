"""What a flow or server refuses at its start: one line that names the setting, and no traceback."""

import os
import socket
import subprocess
import sys

import pytest
import redis

from headrace.settings import Settings
from state.embedded_redis import EmbeddedRedis
from state.eviction import refuse_eviction
from state.settings import BadSettings
from state.store.redis_store import RedisStore

pytestmark = pytest.mark.redis
FULL = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}


def end_of(command, folder, redis_url, **more):
    """Run a command that is to end by itself; return its exit code and what it said."""
    environment = os.environ | {
        "HEADRACE_DATA_DIR": str(folder), "HEADRACE_REDIS_URL": redis_url, "HEADRACE_FLOW_METRICS_PORT": "0",
        "HEADRACE_HTTP_PORT": "0", "HEADRACE_GRPC_PORT": "0",
    } | more  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "headrace", command], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


@pytest.mark.e2e
@pytest.mark.parametrize("command", ["flow", "serve"])
def test_a_redis_that_evicts_rows_is_refused_in_one_line(tmp_path, command):
    with EmbeddedRedis(tmp_path / "redis", options=FULL) as server:
        code, said = end_of(command, tmp_path, server.url)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "allkeys-lru" in said
    assert "HEADRACE_REDIS_EVICTION" in said


@pytest.mark.parametrize(
    ("options", "evicts"),
    [
        (FULL, True), (FULL | {"maxmemory-policy": "volatile-ttl"}, True), (FULL | {"maxmemory": "0"}, False),
        (FULL | {"maxmemory-policy": "noeviction"}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("forbids_config", [False, True])
def test_only_a_redis_that_may_evict_is_refused_also_one_that_forbids_config(tmp_path, options, evicts, forbids_config):
    with EmbeddedRedis(tmp_path / "redis", options=options) as server:
        if forbids_config:
            redis.Redis.from_url(server.url).execute_command("ACL", "SETUSER", "default", "-config")
        store = RedisStore(server.url)
        assert bool(store.evicts()) == evicts
        refuse_eviction(store, Settings(redis_eviction="warn"))
        if evicts:
            with pytest.raises(BadSettings, match="HEADRACE_REDIS_EVICTION=warn"):
                refuse_eviction(store, Settings())
        else:
            refuse_eviction(store, Settings())
        store.close()


@pytest.mark.e2e
def test_a_flow_whose_metrics_port_is_taken_says_so_in_one_line_and_ends_with_two(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = end_of("flow", tmp_path, server.url, HEADRACE_FLOW_METRICS_PORT=str(port))
    assert code == 2
    assert len(said.splitlines()) == 1
    assert f"HEADRACE_FLOW_METRICS_PORT: port {port}" in said


@pytest.mark.e2e
def test_a_server_whose_http_port_is_taken_says_so_in_one_line_and_ends_with_two(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = end_of("serve", tmp_path, server.url, HEADRACE_HTTP_HOST="127.0.0.1", HEADRACE_HTTP_PORT=str(port))
    assert code == 2
    assert len(said.splitlines()) == 1
    assert f"HEADRACE_HTTP_PORT: port {port} of 127.0.0.1 cannot be had: Address already in use" in said
