import pytest

from headrace.cli import anchors, diff, features, generations, status
from headrace.console import UNAVAILABLE
from headrace.settings import Settings
from state.ports import free_port

COMMANDS = {
    "status": lambda settings: status.run(settings, json=True),
    "diff": lambda settings: diff.run(settings, "g1", "g2", 1, 0.0, json=True),
    "features": lambda settings: features.show(settings, "user", "ann", json=True),
    "switch": lambda settings: generations.switch(settings, "g2", json=True),
    "anchors": lambda settings: anchors.list_anchors(settings, json=True),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_redis_says_so_and_does_not_wait_for_it(capsys, tmp_path, command):
    url = f"redis://127.0.0.1:{free_port()}"
    settings = Settings(redis_url=url, data_dir=tmp_path, connect_timeout_s=3600)
    assert COMMANDS[command](settings) == UNAVAILABLE
    assert "refused" in capsys.readouterr().err
