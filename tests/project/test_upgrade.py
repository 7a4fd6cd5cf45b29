"""The data folder of an earlier version, made by that version (`tests/golden/upgrade`), starts with this one."""

import tarfile
from pathlib import Path

import pytest
from helpers.up import Up, run, wait_for

FOLDERS = Path(__file__).parents[1] / "golden" / "upgrade"
PRODUCTS, ORDERS = 10, 12


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["0.3.0"])
def test_the_data_folder_of_an_earlier_version_is_gone_on_with(tmp_path, version):
    with tarfile.open(FOLDERS / f"{version}.tar.gz") as packed:
        packed.extractall(tmp_path)
    up = Up(tmp_path)
    up.environment |= {"HEADRACE_ID_KEY": "", "HEADRACE_ALLOW_ANONYMOUS": "true"}  # it has a key of ids, and API keys
    with up:
        found = run(up, "status")
        (lane,) = found["generations"]["g1"]["lanes"]
        assert lane["lag"] == 0
        assert (lane["positions"]["products:0"], lane["positions"]["purchases:0"]) == (PRODUCTS, ORDERS)
        assert found["anchor"] == "a20261201-000643"
        answer = up.recommend(user="user3", count=5)
        assert (answer["fallback"], answer["rules_version"], answer["anchor"]) == ("personalised", 1, found["anchor"])
        assert all(one["title"] not in ("", one["item"]) for one in answer["items"])
        assert up.recommend(user="user3", placement="landing")["items"][0]["item"] == "p0"  # pinned by its book
        assert [key["name"] for key in run(up, "keys")["keys"]] == ["shop"]

        up.events({"type": "view", "user": "new", "item": "p4"})
        views = lane["positions"]["product-views:0"]
        wait_for(lambda: run(up, "status")["generations"]["g1"]["lanes"][0]["positions"]["product-views:0"] > views)
        run(up, "replay", "afresh")  # old messages are read by this version's decoder
        assert run(up, "diff", "g1", "afresh", "--threshold", "1")["users"]["differing"] == 0
        newer = run(up, "anchor", "--force")["version"]
        wait_for(lambda: up.recommend(user="new")["anchor"] == newer)
