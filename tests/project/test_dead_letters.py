"""`headrace dead-letters list`: what it shows can be given to `show`, however narrow the terminal is."""

import json
import os
import subprocess
import sys

import pytest

from flows.log.contract import Message
from flows.log.dead_letters import DeadLetters
from flows.log.sqlite_log import SqliteLog
from schemas.events import BadMessage

PLACE = "product-views:0:0"
DETAIL = "the value begins with neither the magic byte of a registry nor that of a file, and [bold] is no markup"


@pytest.fixture
def run(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([Message("product-views", b"", b"anything", 1)])
    raw = log.read(log.start(), 10, 0)
    DeadLetters(log).write(raw, [BadMessage(0, "unreadable_schema", DETAIL)], 1_700_000_000_000)
    log.close()

    def run(*arguments, columns=80):
        environment = os.environ | {"HEADRACE_DATA_DIR": str(tmp_path), "COLUMNS": str(columns)}
        environment["HEADRACE_LOG_URL"] = f"sqlite:{tmp_path / 'log.sqlite'}"
        command = [sys.executable, "-m", "headrace", "dead-letters", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


@pytest.mark.process
@pytest.mark.parametrize("columns", [80, 40])
def test_a_listed_place_is_whole_and_shows_its_letter(run, columns):
    listed = run("list", columns=columns)
    assert f" {PLACE} " in listed
    assert max(len(line) for line in listed.splitlines()) <= columns
    assert "unreadable_schema" in run("show", PLACE)


@pytest.mark.process
def test_a_list_is_json_too(run):
    (letter,) = json.loads(run("list", "--json"))["letters"]
    assert (f"{letter['stream']}:{letter['offset']}", letter["reason"]) == (PLACE, "unreadable_schema")
