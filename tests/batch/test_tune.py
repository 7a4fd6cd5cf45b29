import json
import os
import subprocess
import sys

import pytest
from helpers.purchases import NOW, purchase

from flows.log.sqlite_log import SqliteLog


def tune(folder, *arguments):
    command = [sys.executable, "-m", "headrace", "tune", "--json", *arguments]
    environment = os.environ | {"HEADRACE_DATA_DIR": str(folder), "HEADRACE_ALS_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.process
@pytest.mark.timeout(300)
def test_a_study_finds_settings_no_worse_than_the_present_ones_and_is_gone_on_with(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([purchase(n, NOW + n * 1000) for n in range(3000)])
    log.close()
    done = tune(tmp_path, "--trials", "4", "--html", str(tmp_path / "plots.html"))
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["trials"] == 4
    assert first["recall@20"] >= first["first"]
    assert set(first["settings"]) == {
        "HEADRACE_FACTORS", "HEADRACE_ALS_REGULARIZATION", "HEADRACE_ALS_ALPHA", "HEADRACE_ALS_ITERATIONS"
    }  # fmt: skip
    assert (tmp_path / "plots.html").stat().st_size > 10_000
    again = json.loads(tune(tmp_path, "--trials", "2").stdout)
    assert again["trials"] == 6
    assert again["recall@20"] >= first["recall@20"]


@pytest.mark.process
def test_an_empty_log_is_told(tmp_path):
    done = tune(tmp_path)
    assert done.returncode == 1
    assert "0 interactions" in done.stderr
