import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.main import BENCHES, COMMANDS, load_command

ROOT = Path(__file__).parents[2]


def headrace(*arguments, **environment):
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def test_the_readme_opens_with_two_commands_the_makefile_has():
    commands = re.findall(r"^    make (\w+) ", (ROOT / "README.md").read_text(), re.M)
    assert commands[:2] == ["demo", "test"]
    for target in commands:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_docs_name_exactly_the_commands_there_are():
    named = set(re.findall(r"^\| `headrace ([a-z -]+)` \|", (ROOT / "docs" / "commands.md").read_text(), re.M))
    assert named == COMMANDS.keys() | {f"bench {name}" for name in BENCHES}


@pytest.mark.parametrize(
    ("package", "name", "line"),
    [("headrace.cli", *one) for one in COMMANDS.items()] + [("headrace.bench", *one) for one in BENCHES.items()],
)
def test_the_table_of_commands_says_of_each_what_its_own_help_says(package, name, line):
    command = load_command(package, name)
    assert (command.name, command.help.split("\n")[0]) == (name, line)


@pytest.mark.process
def test_listing_the_commands_imports_none_of_them():
    code = "import sys; from headrace.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.stderr.write(str(sorted({'numba', 'faiss', 'grpc', 'fastapi'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "[]"


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADRACE_HTTP_PORT", "many", "HEADRACE_HTTP_PORT"),
        ("HEADRACE_PAIR_WINDOW", "0", "HEADRACE_PAIR_WINDOW"),
        ("HEADRACE_PAIR_WINDOWS", "3", "did you mean HEADRACE_PAIR_WINDOW?"),
        ("HEADRACE_CONFIG", "/nowhere.toml", "HEADRACE_CONFIG"),
        ("HEADRACE_CONFIG", "/tmp", "/tmp cannot be read: Is a directory"),
        ("HEADRACE_KAFKA_CONFIG", "notjson", "HEADRACE_KAFKA_CONFIG is not JSON"),
        ("HEADRACE_LOG_URL", "foo:bar", "HEADRACE_LOG_URL"),
        ("HEADRACE_REDIS_URL", "nonsense", "HEADRACE_REDIS_URL"),
        ("HEADRACE_REDIS_URL", "redis://host:99999x", "HEADRACE_REDIS_URL"),
    ],
)
def test_a_wrong_setting_stops_the_program_and_is_named(name, value, said):
    done = headrace("settings", **{name: value})
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_settings_print_value_origin_and_meaning_as_one_json_object(tmp_path):
    (tmp_path / "c.toml").write_text("pair_window = 5\n")
    done = headrace("settings", "--json", HEADRACE_CONFIG=str(tmp_path / "c.toml"), HEADRACE_N_LANES="2")
    values = json.loads(done.stdout)
    assert (values["pair_window"]["value"], values["pair_window"]["from"]) == (5, "file")
    assert (values["n_lanes"]["value"], values["n_lanes"]["from"]) == (2, "environment")
    assert all(value["meaning"] for value in values.values())


@pytest.mark.process
def test_no_password_is_shown_by_settings_or_by_the_error_of_a_wrong_one():
    secrets = {
        "HEADRACE_REDIS_URL": "redis://shop:geheim@127.0.0.1:6379/0",
        "HEADRACE_SCHEMA_REGISTRY_URL": "https://key:geheim@registry:8081",
        "HEADRACE_KAFKA_CONFIG": '{"sasl.username": "shop", "sasl.password": "geheim"}',
        "HEADRACE_SCHEMA_REGISTRY_CONFIG": '{"basic.auth.user.info": "key:geheim", "ssl.key.password": "geheim"}',
    }
    for arguments in (["settings"], ["settings", "--json"]):
        done = headrace(*arguments, **secrets)
        assert done.returncode == 0
        assert "geheim" not in done.stdout + done.stderr
        assert "key" in done.stdout
    for name, value in secrets.items():
        wrong = value.replace('"geheim"', '["geheim"]') if "{" in value else value
        done = headrace("settings", **{name: wrong})
        assert "geheim" not in done.stdout + done.stderr


@pytest.mark.process
def test_a_table_is_loaded_once_however_often_it_is_given(tmp_path):
    table = tmp_path / "e.csv"
    table.write_text("visitor,itemid,time,what\n1,a,1700000000,view\n2,b,1700000100,transaction\n3,,1700000200,view\n")
    options = ["--map", "user=visitor,item=itemid,ts=time,kind=what", "--kinds", "transaction=purchase", "--json"]
    dry = json.loads(headrace("load", str(table), *options, "--dry-run").stdout)
    assert [event["type"] for event in dry["first"]] == ["view", "purchase"]
    assert list(dry["refused"]) == ["item: is needed"]
    done = headrace("load", str(table), *options, HEADRACE_DATA_DIR=str(tmp_path))
    assert json.loads(done.stdout)["loaded"] == 2
    assert headrace("load", str(table), "--map", "user=nobody,ts=time").returncode == 2


@pytest.mark.process
def test_one_time_that_cannot_be_read_loses_its_own_row_alone(tmp_path):
    table = tmp_path / "e.csv"
    table.write_text("user,item,ts\n1,a,1700000000\n2,b,n/a\n3,c,2024-01-01T10:00:00Z\n4,d,1700000000500\n")
    done = headrace("load", str(table), "--map", "user=user,item=item,ts=ts", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert [event["ts_ms"] for event in found["first"]] == [1700000000000, 1700000000500, 1704103200000]
    assert found["refused"] == {"ts: is empty": 1}


@pytest.mark.process
@pytest.mark.parametrize(("name", "content"), [("e.csv", b""), ("e.parquet", b"PAR"), ("d.csv", None)])
def test_a_file_that_is_no_table_is_named(tmp_path, name, content):
    file = tmp_path / name
    file.mkdir() if content is None else file.write_bytes(content)
    done = headrace("load", str(file), "--map", "user=user,item=item,ts=ts")
    assert done.returncode == 2
    assert f"{name} cannot be read as" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_a_metric_is_documented_or_this_fails():
    docs = (ROOT / "docs" / "operate.md").read_text()
    names = set[str]()
    for package in ("flows", "serving", "state"):
        for path in (ROOT / package).rglob("*.py"):
            names |= set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(headrace_\w+)"', path.read_text()))
    assert len(names) >= 25
    assert {name for name in names if not re.search(rf"\b{name}(?:_total)?\b", docs)} == set()


@pytest.mark.process
def test_generated_grpc_code_is_what_the_proto_says(tmp_path):
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
        "serving/proto/headrace.proto",
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    for name in ("headrace_pb2.py", "headrace_pb2.pyi"):
        made = (tmp_path / "serving" / "proto" / name).read_text()
        assert made == (ROOT / "serving" / "proto" / name).read_text()


@pytest.mark.process
def test_files_of_one_name_are_not_taken_for_one_another_and_one_loaded_again_adds_nothing(tmp_path):
    import io

    import fastavro

    from flows.log.sqlite_log import SqliteLog
    from schemas.registry import FolderRegistry

    orders = {
        "jan": "user,item,ts\nu1,tea,2024-01-01T10:00:00Z\nu2,tea,2024-01-02T10:00:00Z\n",
        "feb": "user,item,ts\nu3,cup,2024-02-01T10:00:00Z\nu4,cup,2024-02-02T10:00:00Z\nu4,cup,2024-02-02T10:00:00Z\n",
    }
    for month, text in orders.items():
        (tmp_path / month).mkdir()
        (tmp_path / month / "orders.csv").write_text(text)
    for month in ("jan", "feb", "jan"):
        file = str(tmp_path / month / "orders.csv")
        loaded = headrace("load", file, "--map", "user=user,item=item,ts=ts", "--kind", "purchase",
                          HEADRACE_DATA_DIR=str(tmp_path))  # fmt: skip
        assert loaded.returncode == 0, loaded.stderr
    log, registry = SqliteLog(tmp_path / "log.sqlite"), FolderRegistry()
    batch, ids = log.read(log.start(), 100, 1), []
    for i in range(len(batch)):
        value = batch.value(i)
        schema = registry.schema(int.from_bytes(value[1:5], "big"))
        ids.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), dict(schema.parsed), None)["event_id"])
    log.close()
    assert len(set(ids)) == 5, "rows that are the same in one file count each"
    assert ids[:2] == ids[5:]
