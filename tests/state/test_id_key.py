"""The key of ids: made once, kept beside Redis, the same in every process; a process with another does not start."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest

from headrace.settings import Settings, load_settings
from schemas.ids import fingerprint, key_in_use
from state.anchor import AnchorDamaged, load_anchor
from state.generations import live_generation, read_generation
from state.rows import keys
from state.settings import BadSettings
from state.store.redis_store import RedisStore

HEADRACE = [sys.executable, "-m", "headrace"]
USE = (
    "from state.id_key import use_id_key\nfrom schemas.ids import key_in_use\nfrom headrace.settings import Settings\n"
)
USE += "use_id_key(Settings())\nprint(key_in_use().hex())"


def environment(folder, key="", **more):
    return os.environ | {"HEADRACE_DATA_DIR": str(folder), "HEADRACE_ID_KEY": key} | more


def key_of(folder, key=""):
    done = subprocess.run([sys.executable, "-c", USE], env=environment(folder, key), capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


@pytest.mark.process
def test_processes_that_start_at_once_have_one_key_which_only_the_owner_can_read(tmp_path):
    folder = tmp_path / "data"
    started = [
        subprocess.Popen([sys.executable, "-c", USE], env=environment(folder), stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    found = {process.communicate(timeout=120)[0].strip() for process in started}
    (key,) = found
    assert bytes.fromhex(key) != bytes(16)
    assert key_of(folder) == key
    assert [path.name for path in folder.iterdir()] == ["id.key"]
    assert stat.S_IMODE((folder / "id.key").stat().st_mode) == 0o600


@pytest.mark.process
def test_the_setting_wins_and_leaves_no_file(tmp_path):
    assert key_of(tmp_path, "AB" * 16) == "ab" * 16
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_damaged_file_is_named_and_never_replaced(tmp_path):
    (tmp_path / "id.key").write_text("abc\n")
    said = key_of(tmp_path)
    assert "BadSettings" in said
    assert str(tmp_path / "id.key") in said
    assert "HEADRACE_ID_KEY" in said
    assert (tmp_path / "id.key").read_text() == "abc\n"


@pytest.mark.process
def test_the_key_is_shown_nowhere(monkeypatch):
    secret = "c0ffee" * 5 + "ab"
    monkeypatch.setenv("HEADRACE_ID_KEY", secret)
    for arguments in (["--json"], []):
        done = subprocess.run([*HEADRACE, "settings", *arguments], capture_output=True, text=True, check=True)
        assert secret not in done.stdout + done.stderr
        assert "id_key" in done.stdout
    assert secret not in repr(load_settings())
    monkeypatch.setenv("HEADRACE_ID_KEY", secret + "0")
    with pytest.raises(BadSettings, match="HEADRACE_ID_KEY") as found:
        load_settings()
    assert secret not in str(found.value)


def test_an_anchor_of_another_key_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"id_key": "siphash13:other", "sha256": {}}))
    with pytest.raises(AnchorDamaged, match="key of ids"):
        load_anchor(tmp_path)


def run_with(key, arguments, folder, url, timeout=120):
    more = {"HEADRACE_REDIS_URL": url, "HEADRACE_FLOW_METRICS_PORT": "0", "HEADRACE_HTTP_PORT": "0",
            "HEADRACE_GRPC_PORT": "0", "HEADRACE_LOG_URL": f"sqlite:{folder / 'log.sqlite'}"}  # fmt: skip
    return subprocess.run(
        [*HEADRACE, *arguments], env=environment(folder, key, **more), capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.redis
@pytest.mark.e2e
def test_a_process_with_another_key_does_not_start_and_a_replay_makes_a_generation_with_it(tmp_path, server):
    store = RedisStore(server.url)
    ours, other = key_in_use().hex(), "00" * 16
    more = {"HEADRACE_REDIS_URL": server.url, "HEADRACE_FLOW_METRICS_PORT": "0",
            "HEADRACE_LOG_URL": f"sqlite:{tmp_path / 'log.sqlite'}"}  # fmt: skip
    flow = subprocess.Popen([*HEADRACE, "flow"], env=environment(tmp_path, ours, **more))
    deadline = time.monotonic() + 120
    while live_generation(store) is None:
        assert time.monotonic() < deadline
        assert flow.poll() is None
        time.sleep(0.1)
    flow.terminate()
    assert flow.wait(60) == 0
    assert read_generation(store, "g1").id_key == fingerprint()
    for command in (["flow"], ["serve"], ["features", "--user", "ann"]):
        done = run_with(other, command, tmp_path, server.url)
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if "another key of ids" in line]
        assert "HEADRACE_ID_KEY" in line
        assert str(tmp_path / "id.key") in line
        assert "headrace replay" in line
        assert "Traceback" not in done.stderr
    assert run_with(other, ["replay", "g2"], tmp_path, server.url).returncode == 0
    assert read_generation(store, "g2").id_key not in ("", fingerprint())
    with pytest.raises(BadSettings, match="g2"):
        read_generation(store, "g2").settings(Settings())
    store.write({keys.GENERATION: None})
