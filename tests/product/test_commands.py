"""Every command of the command line: its help, and where it has `--json`, that run on the real product."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from helpers.product import BOOK

from headrace.cli import main as cli
from headrace.cli.main import load_command

TESTS = Path(__file__).parents[1]
BENCH_SIZE = ["--events", "3000", "--users", "200", "--items", "100"]


COMMANDS = {name: load_command("headrace.cli", name) for name in cli.COMMANDS} | {
    f"bench {name}": load_command("headrace.bench", name) for name in cli.BENCHES
}
SAYS = cli.COMMANDS | {f"bench {name}": line for name, line in cli.BENCHES.items()}
WITH_JSON = {name for name, command in COMMANDS.items() if any(one.name == "json" for one in command.params)}
WITHOUT_JSON = {"flow", "serve", "up", "night", "demo", "topics"}
ELSEWHERE = {
    "tune": "batch/test_tune.py",
    "evaluate": "batch/test_evaluate.py",
    "backup": "project/test_backup.py",
    "restore": "project/test_backup.py",
    "bench outage": "e2e/test_outage.py",
}
"""Commands that take long, and the test that runs them with `--json`."""

RUN = {
    "settings": ([], 0, lambda found: found["n_lanes"]["value"] == 1),
    "features": (["--user", "ann"], 0, lambda found: found),
    "anchor": ([], 0, lambda found: found["version"]),
    "anchors": ([], 0, lambda found: found["live"] in {one["version"] for one in found["anchors"]}),
    "load": (["{table}", "--map", "user=user,item=item,ts=ts", "--dry-run"], 0, lambda found: len(found["first"]) == 2),
    "replay": (["again"], 0, lambda found: found["finished"]),
    "diff": (["g1", "table"], 0, lambda found: found["share_differing"] == 0),
    "switch": (["g1"], 0, lambda found: found["live"] == "g1"),
    "rollback": ([], 1, None),
    "drop": (["dropped"], 0, lambda found: found),
    "status": ([], 0, lambda found: "g1" in found["generations"] and found["well"]),
    "dead-letters": ([], 0, lambda found: found is not None),
    "experiments": ([], 0, lambda found: "lists" in json.dumps(found)),
    "rules": (["test", "{book}", "--user", "ann"], 0, lambda found: found["after"]["items"]),
    "keys": ([], 0, lambda found: found["keys"] == []),
    "plan": (["--events-per-day", "1B"], 0, lambda found: found["fits"] and found["parts"]),
    "version": ([], 0, lambda found: found["version"]),
    "torture": (
        ["--fault", "events_shuffled", "--fuzz", "2000"],
        0,
        lambda found: [fault["driver"] for fault in found["faults"]] == ["loop"],
    ),
    "bench ingest": ([*BENCH_SIZE, "--cached", "300", "--repeats", "1"], 0, lambda found: found),
    "bench freshness": (["--seconds", "1", "--rate", "50", "--rps", "10"], 0, lambda found: found),
    "bench serve": ([*BENCH_SIZE, "--seconds", "1", "--clients", "2", "--repeats", "1"], 0, lambda found: found),
    "bench catalogue": (["--items", "2k", "--factors", "8", "--queries", "20"], 0, lambda found: found),
    "bench replay": (["--events", "3000", "--rps", "10"], 0, lambda found: found),
}
"""By command: its arguments, its exit code, and what its JSON shows."""
SLOW = {name for name in RUN if name.startswith("bench") or name == "torture"}


@pytest.fixture(scope="module")
def files(shop, tmp_path_factory):
    """Files and generations that commands are about."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "e.csv").write_text("user,item,ts\nz1,tea,2024-01-01T10:00:00Z\nz2,cup,2024-01-02T10:00:00Z\n")
    (folder / "book.yaml").write_text(yaml.safe_dump(BOOK))
    shop.wait_until_folded()
    for name in ("table", "dropped"):
        shop.run("replay", name)
    return {"table": str(folder / "e.csv"), "book": str(folder / "book.yaml")}


def test_the_table_has_every_command():
    assert set(RUN) | set(ELSEWHERE) == WITH_JSON
    assert set(COMMANDS) - WITH_JSON == WITHOUT_JSON
    assert (len(COMMANDS), len(WITH_JSON)) == (34, 28)
    for name, path in ELSEWHERE.items():
        text = (TESTS / path).read_text()
        assert all(f'"{word}"' in text for word in (*name.split(), "--json")), name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_and_its_options(name):
    done = CliRunner().invoke(COMMANDS[name], ["--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert SAYS[name].split(".")[0][:60] in " ".join(done.output.split())
    for option in COMMANDS[name].params:
        assert getattr(option, "help", None) or option.param_type_name == "argument", (name, option.name)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RUN])
def test_a_command_prints_json_and_nothing_else(shop, files, name):
    arguments, code, shows = RUN[name]
    arguments = [one.format(**files) for one in arguments]
    done = shop.command(*name.split(), *arguments, "--json")
    assert done.returncode == code, done.stderr
    if shows is None:
        assert done.stdout == ""
        assert done.stderr
    else:
        assert shows(json.loads(done.stdout)), done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["diff", "g1", "nowhere"], 1), (["switch", "nowhere"], 1), (["drop", "g1"], 1), (["rules", "put", "/nowhere"], 2),
     (["load", "/nowhere.csv", "--map", "user=u"], 2), (["flow", "--driver", "steam"], 2), (["nothing"], 2),
     (["anchor", "remove", "nowhere"], 1)],
)  # fmt: skip
def test_what_cannot_be_done_has_its_exit_code_and_says_why(shop, arguments, code):
    done = shop.command(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
