import json
import os
import subprocess
import sys

import pytest
from helpers.purchases import NOW, purchase

from flows.log.sqlite_log import SqliteLog
from headrace.cli.tune import run
from headrace.settings import Settings


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
    done = tune(tmp_path, "--strategy", "collaborative", "--trials", "4", "--html", str(tmp_path / "plots.html"))
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["trials"] == 4
    assert first["from_vectors"] == 1
    assert first["best"]["HR@20"] >= first["present"]["HR@20"]
    assert first["difference"][0] == pytest.approx(first["best"]["HR@20"] - first["present"]["HR@20"])
    assert set(first["settings"]) == {
        "HEADRACE_FACTORS", "HEADRACE_ALS_REGULARIZATION", "HEADRACE_ALS_ALPHA", "HEADRACE_ALS_ITERATIONS"
    }  # fmt: skip
    assert (tmp_path / "plots.html").stat().st_size > 10_000
    again = json.loads(tune(tmp_path, "--strategy", "collaborative", "--trials", "1").stdout)
    assert again["trials"] == 5
    assert again["best"]["HR@20"] >= first["best"]["HR@20"]


@pytest.mark.process
def test_settings_that_change_no_place_of_a_list_are_no_different(tmp_path, capsys):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([purchase(n, NOW + n * 1000) for n in range(2000)])
    log.close()
    assert run(Settings(data_dir=tmp_path, als_threads=1), "hybrid", 1, None, json=False) == 0
    printed = capsys.readouterr().out
    assert "`hybrid`" in printed
    assert "no different from the present ones (+0.00 ± 0.00 points)" in printed


def test_an_empty_log_is_told(tmp_path, capsys):
    assert run(Settings(data_dir=tmp_path), "hybrid", 1, None, json=True) == 1
    assert "0 interactions" in capsys.readouterr().err
