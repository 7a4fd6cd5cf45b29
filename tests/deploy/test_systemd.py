"""The systemd units: what they start exists, and systemd itself finds no fault where it is installed."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.cli.main import COMMANDS

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def parsed(path):
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    unit.optionxform = str
    unit.read(path)
    return unit


@pytest.mark.parametrize("name", ["flow", "server", "night"])
def test_a_service_runs_a_command_that_exists_with_the_settings_file_of_the_page(name):
    unit = parsed(UNITS / f"headrace-{name}.service")
    program, command = unit["Service"]["ExecStart"].split()
    assert program == "/opt/headrace/bin/headrace"
    assert command in COMMANDS
    assert "HEADRACE_CONFIG=/etc/headrace/headrace.toml" in (UNITS / f"headrace-{name}.service").read_text()
    page = (UNITS.parents[1] / "docs" / "systemd.md").read_text()
    assert f"`headrace-{name}.service`" in page


def test_the_timer_starts_the_service_of_its_name_and_makes_up_for_a_missed_night():
    timer = parsed(UNITS / "headrace-night.timer")["Timer"]
    assert (timer["OnCalendar"], timer["Persistent"]) == ("*-*-* 03:30", "true")
    assert (UNITS / "headrace-night.service").exists()


@pytest.mark.process
def test_systemd_finds_no_fault(tmp_path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return  # the tests above hold all the same
    for path in UNITS.iterdir():  # a program that is there: /opt/headrace is not
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/headrace/bin/headrace", "/bin/true"))
    done = subprocess.run(
        [verify, "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr
