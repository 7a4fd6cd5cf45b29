"""docs/start.md, command by command: what a new shop types, and the answers that the page prints."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from helpers.up import Up

ROOT = Path(__file__).parents[2]
CHANGING = ("request_id", "attribution", "next_cursor", "milliseconds", "score", "event_ids")
"""What differs from run to run."""


def steady(text: str) -> object:
    """Return what a command printed without what differs from run to run."""
    if not text.startswith("{"):
        return text
    return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if k not in CHANGING})


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_the_first_page_prints_what_its_commands_print(tmp_path):
    text = (ROOT / "docs" / "start.md").read_text()
    steps = re.findall(r"^```sh\n(.*?)^```(?:\n\n^```(?:json|text)\n(.*?)^```)?", text, re.M | re.S)[1:]
    assert len(steps) >= 8
    with Up(tmp_path / "data") as up:
        commands = "echo =====\n".join(command for command, _ in steps)
        commands = commands.replace("localhost:8080", up.where["http"])
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
    for (command, printed), found in zip(steps, done.stdout.split("=====\n"), strict=True):
        if printed:
            assert steady(found.strip()) == steady(printed.strip()), command
