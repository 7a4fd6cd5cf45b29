import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(600)
def test_the_readmes_first_command_shows_a_purchase_change_the_answer(tmp_path):
    environment = os.environ | {
        "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_HTTP_PORT": "0", "HEADRACE_GRPC_PORT": "0",
        "HEADRACE_FLOW_METRICS_PORT": "0",
    }  # fmt: skip
    done = subprocess.run(
        ["make", "demo", "EXIT=1"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = done.stderr
    assert "1,469,307 purchases" in shown
    assert len(re.findall(r"^household \d+ (?:has|drinks) ", shown, re.M)) == 3
    lists = re.findall(r"^(?:  \w|household).*:\n((?:    .*\n)+)", shown, re.M)
    assert len(lists) == 7
    for one in lists:  # each kind of product once
        names = [line[4:40] for line in one.splitlines()]
        assert len(set(names)) == len(names)
    for noise in ("Warning", "{", "Traceback", "headrace.settings"):
        assert noise not in shown
    assert "because you bought" in shown
    assert re.search(r"visible in an answer after [\d.]+ ms", shown)
    assert shown.rstrip().endswith("Everything has stopped.")
