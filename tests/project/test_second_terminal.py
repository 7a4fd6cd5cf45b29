"""A second terminal beside a running `headrace up`: every command finds it, with nothing set but the data folder."""

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import yaml
from helpers.product import BOOK
from helpers.up import HEADRACE, Up, views, wait_for

from headrace.cli.main import COMMANDS

BESIDE = {
    "replay": ["second", "--json"],
    "diff": ["g1", "second", "--threshold", "1", "--json"],
    "switch": ["second", "--json"],
    "rollback": ["--json"],
    "drop": ["second", "--json"],
    "settings": ["--json"],
    "features": ["--user", "u1", "--json"],
    "anchor": ["--json"],
    "anchors": ["--json"],
    "topics": [],
    "load": ["{table}", "--map", "user=user,item=item,ts=ts", "--dry-run", "--json"],
    "status": ["--json"],
    "dead-letters": ["--json"],
    "experiments": ["--json"],
    "rules": ["test", "{book}", "--user", "u1", "--json"],
    "keys": ["--json"],
    "backup": ["{copy}", "--json"],
    "version": ["--json"],
}
"""Commands and their arguments; those of IN_ORDER need each other."""
IN_ORDER = ("replay", "diff", "switch", "rollback", "drop")
ALONE = {"up", "flow", "serve", "night", "demo", "restore", "evaluate", "tune", "torture", "plan"}
"""Programs that run until they are stopped, start parts of their own, or have a test of their own."""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with Up(folder) as up:
        up.events(*views(400))
        wait_for(lambda: up.knows("u1"))
        (folder / "e.csv").write_text("user,item,ts\nz1,i1,2024-01-01T10:00:00Z\nz2,i2,2024-01-02T10:00:00Z\n")
        (folder / "book.yaml").write_text(yaml.safe_dump(BOOK))
        yield up


def second_terminal(folder, *arguments, **more):
    """Run a command as in a terminal where only the data folder is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    kept |= {name: value for name, value in os.environ.items() if name == "HEADRACE_ID_KEY"}
    environment = kept | {"HEADRACE_DATA_DIR": str(folder)} | more
    return subprocess.run([*HEADRACE, *arguments], env=environment, capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip


def test_every_command_of_the_registry_is_tried_here_or_runs_alone():
    assert set(BESIDE) | ALONE == set(COMMANDS)


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_every_command_finds_the_running_up(up):
    files = {"copy": str(up.folder / "copy"), "table": str(up.folder / "e.csv"), "book": str(up.folder / "book.yaml")}

    def tried(*names):
        for name in names:
            done = second_terminal(up.folder, name, *(one.format(**files) for one in BESIDE[name]))
            assert done.returncode == 0, (name, done.stderr)
            assert json.loads(done.stdout) if "--json" in BESIDE[name] else True, name

    tried(*IN_ORDER)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(tried, sorted(set(BESIDE) - set(IN_ORDER))))


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_settings_of_up_are_joined_and_one_that_is_set_here_wins(up):
    found = json.loads(second_terminal(up.folder, "settings", "--json").stdout)
    assert (found["factors"]["value"], found["factors"]["from"]) == (4, "headrace up")
    assert found["redis_url"]["from"] == "headrace up"
    assert found["http_port"]["from"] == "default"  # a process's own
    own = json.loads(second_terminal(up.folder, "settings", "--json", HEADRACE_FACTORS="5").stdout)
    assert (own["factors"]["value"], own["factors"]["from"]) == (5, "environment")
    away = second_terminal(up.folder, "status", HEADRACE_REDIS_URL=f"unix://{up.folder}/nothing.sock")
    assert away.returncode == 3
    assert (up.folder / "run.json").stat().st_mode & 0o077 == 0  # an address may hold a password


@pytest.mark.process
def test_without_up_the_error_names_both_ways_on(tmp_path):
    done = second_terminal(tmp_path, "status")
    assert done.returncode == 2
    assert "start `headrace up`" in done.stderr
    assert "set HEADRACE_REDIS_URL" in done.stderr


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_an_up_that_was_killed_takes_its_parts_along_and_its_run_file_counts_for_nothing(tmp_path):
    with Up(tmp_path) as up:
        store = redis.Redis.from_url(up.where["redis_url"])
        up.kill()
    wait_for(lambda: not answers(store))
    assert (tmp_path / "run.json").exists()
    done = second_terminal(tmp_path, "status")
    assert done.returncode == 2
    assert "was killed" in " ".join(done.stderr.split())
    with Up(tmp_path) as again:
        wait_for(lambda: json.loads(second_terminal(again.folder, "status", "--json").stdout)["well"])


def answers(store):
    try:
        return store.ping()
    except redis.RedisError:
        return False


@pytest.mark.process
@pytest.mark.parametrize("name", ["HTTP", "GRPC", "FLOW_METRICS"])
def test_a_port_that_is_taken_stops_up_before_it_starts_anything(tmp_path, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = Up(tmp_path).environment | {f"HEADRACE_{name}_PORT": port}
        done = subprocess.run(
            [*HEADRACE, "up"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert f"HEADRACE_{name}_PORT: port {port} of 127.0.0.1" in done.stderr
    assert not (tmp_path / "redis").exists()
