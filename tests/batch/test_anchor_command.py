"""How `headrace anchor` ends when it publishes nothing: one line, an exit code, and a record for `headrace status`."""

import pytest

from flows.connect import open_store
from flows.log.sqlite_log import SqliteLog
from headrace.cli.anchor import run_anchor
from headrace.settings import Settings
from state.anchors.last_run import read_last_run
from state.embedded_redis import EmbeddedRedis


def line_of(capsys):
    *_, line = capsys.readouterr().err.splitlines()
    return line


def test_a_store_that_is_away_is_named_and_nothing_else(tmp_path, capsys):
    away = Settings(data_dir=tmp_path, redis_url=f"unix://{tmp_path}/none.sock", connect_timeout_s=0.1)
    assert run_anchor(away, json=False) == 3
    assert "Redis" in line_of(capsys)


@pytest.mark.redis
@pytest.mark.parametrize(
    ("anchors", "exit_code", "outcome", "message"),
    [("a-folder", 1, "too_little", "0 interactions"), ("log.sqlite", 3, "failed", "log.sqlite: File exists")],
)
def test_a_training_that_publishes_nothing_is_recorded(tmp_path, capsys, anchors, exit_code, outcome, message):
    with EmbeddedRedis(tmp_path / "redis") as server:
        settings = Settings(data_dir=tmp_path, redis_url=server.url, anchors_url=str(tmp_path / anchors))
        SqliteLog(tmp_path / "log.sqlite").close()
        assert run_anchor(settings, json=False) == exit_code
        assert message in line_of(capsys)
        store = open_store(settings)
        last = read_last_run(store)
        store.close()
    assert last.outcome == outcome
    assert message in last.message
