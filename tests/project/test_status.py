from serving.cli import status
from serving.cli.console import UNAVAILABLE
from state.ports import free_port
from state.settings import Settings


def test_a_status_without_redis_says_so_and_does_not_wait_for_it(capsys, tmp_path):
    url = f"redis://127.0.0.1:{free_port()}"
    settings = Settings(redis_url=url, data_dir=tmp_path, connect_timeout_s=3600)
    assert status.run(settings, json=True) == UNAVAILABLE
    assert "refused" in capsys.readouterr().err
