"""Every code block of README and docs runs against a live shop, and prints what the page says it prints."""

import json
import os
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import fastavro
import pytest
from helpers.pages import ROOT, Block, Shell, agrees, blocks_of
from helpers.up import HEADRACE, Up, post, wait_for

from schemas.json_events import encode
from schemas.registry import FolderRegistry

pytestmark = [pytest.mark.e2e, pytest.mark.redis]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = tomllib.loads((ROOT / "tests/project/blocks_not_run.toml").read_text())["block"]
README = ROOT / "README.md"
START = ROOT / "docs/start.md"
OF_THE_SAMPLE = (README, ROOT / "docs/quality.md")
"""Pages that take the sample shop to be there."""


def why_not_run(block: Block) -> str | None:
    for one in NOT_RUN:
        if one["page"] == block.page and block.text.startswith(one["begins"]):
            return one["why"]
    return None


def script_of(block: Block, number: int) -> str | None:
    """Return what a reader would do with a block, as shell commands; None where there is nothing to run."""
    if block.language == "sh":
        return block.text
    name = f"block-{number}.{block.language}"
    write = f"cat > {name} <<'END-OF-BLOCK'\n{block.text}END-OF-BLOCK\n"
    if block.language == "python":
        return f"{write}.venv/bin/python {name}"
    if block.language == "yaml":
        return f"{write}.venv/bin/headrace rules lint {name}"
    if block.language == "json":
        return script_of_json(json.loads(block.text), write, name, block)
    assert block.language in ("", "text"), f"{block}: no way to run a block of {block.language}"
    return None


def script_of_json(value: object, write: str, name: str, block: Block) -> str | None:
    topic = (
        block.before.rpartition("Avro record on `")[2].partition("`")[0] if "Avro record on `" in block.before else ""
    )
    if topic:
        assert encode(topic, value, FolderRegistry()), block
        return None
    first = value[0] if isinstance(value, list) else value
    if first.get("type") == "record":
        fastavro.parse_schema(first)
        return None
    assert "type" in first, f"{block}: neither an event, an Avro record nor a schema: make it the output of a command"
    return (
        f"{write}curl -s --fail-with-body localhost:8080/v1/events "
        f"-H 'Content-Type: application/json' -d @{name} > /dev/null"
    )


def fill(up: Up, page: Path) -> None:
    """Send what a page takes to be there: the sample shop of the README, or products and events of the first page."""
    if page in OF_THE_SAMPLE:
        assert returncode(up, "load", "--sample") == 0
        wait_for(lambda: returncode(up, "status") == 0)
        return
    for name in ("products.json", "events.json"):
        (text,) = [b.text for b in blocks_of(START) if b.language == "sh" and f"cat > {name}" in b.text]
        post(up.where["http"] + "/v1/events", json.loads(text.partition("'END'\n")[2].partition("\nEND\n")[0]))
    n_events = {"ann": 4, "bob": 2, "cem": 2}  # an order counts a line each
    wait_for(lambda: all(history(up, user) == n for user, n in n_events.items()))
    time.sleep(1)  # top lists are read anew once a second


def returncode(up: Up, *command: str) -> int:
    return subprocess.run([*HEADRACE, *command], env=up.environment, capture_output=True, check=False).returncode


def history(up: Up, user: str) -> int:
    """Return how many events of a user a server shows."""
    with urllib.request.urlopen(f"{up.where['http']}/v1/users/{user}", timeout=10) as answer:
        return len(json.loads(answer.read())["events"])


def changed_for(up: Up, text: str) -> str:
    """Return a script with the addresses of the running shop in place of the usual ones."""
    address = up.where["http"].removeprefix("http://")
    grpc = up.where["grpc"]
    return text.replace("localhost:8080", address).replace("127.0.0.1:8080", address).replace("127.0.0.1:8081", grpc)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, monkeypatch):
    blocks = [block for block in blocks_of(page) if not why_not_run(block)]
    scripts = [(block, script) for n, block in enumerate(blocks) if (script := script_of(block, n))]
    if not scripts:
        return
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    for name in ("deploy", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.delenv("HEADRACE_ID_KEY")  # a user's shop has a key of its own, in its data folder
    monkeypatch.setenv("HEADRACE_NIGHT_AT", "off")  # an anchor in the middle of a page changes what it prints
    with Up(tmp_path / "data") as up:
        if page != START:
            fill(up, page)
        environment = {name: value for name, value in os.environ.items() if name != "HEADRACE_REDIS_URL"}
        environment |= {"COLUMNS": "80", "TERM": "dumb", "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
        shell = Shell(tmp_path, environment)
        done = shell.run_all([changed_for(up, script) for _, script in scripts])
    for (block, script), (status, output) in zip(scripts, done, strict=False):
        assert status == 0, f"{block}: exit {status}\n{script}\n{output}"
        if block.printed:
            assert agrees(output, block.printed), f"{block}: printed\n{output}\nthe page says\n{block.printed}"
    assert len(done) == len(scripts)


def test_each_block_that_is_not_run_is_there_and_has_a_reason():
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert all(page.read_text().startswith("#") for page in PAGES)
    for one in NOT_RUN:
        assert one["why"]
        assert sum(b.page == one["page"] and b.text.startswith(one["begins"]) for b in blocks) == 1, one
    run = [b for b in blocks if not why_not_run(b) and b.language not in ("", "text")]
    assert len(run) > 5 * len(NOT_RUN) / 2
    assert {"sh", "json", "yaml", "python"} <= {b.language for b in run}
