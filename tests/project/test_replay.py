"""Replay, diff, switch, rollback and drop, by the commands of docs/runbook.md against real parts."""

import json
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.up import Up, post, views, wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with Up(tmp_path_factory.mktemp("shop")) as up:
        for k in range(0, 3000, 500):
            up.events(*views(3000)[k : k + 500])
        post(up.where["http"] + "/v1/events", {"type": "purchase", "user": "u1", "lines": [{"item": "i3"}]})
        wait_until_folded(up)
        yield up


def headrace(up, *arguments):
    environment = up.environment | {"HEADRACE_REDIS_URL": up.where["redis_url"]}
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def run(up, *arguments, code=0):
    done = headrace(up, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_replay_makes_the_live_rows_again_on_one_lane_and_on_four(shop):
    one = run(shop, "replay", "again")
    assert one["finished"]
    assert run(shop, "diff", "g1", "again")["share_differing"] == 0
    run(shop, "replay", "wax", "--driver", "bytewax")
    assert run(shop, "diff", "g1", "wax")["share_differing"] == 0
    four = run(shop, "replay", "four", "--set", "n_lanes=4")
    assert four["messages"] == one["messages"]
    compared = run(shop, "diff", "g1", "four")
    assert (compared["users"]["differing"], compared["items"]["differing"]) == (0, 0)
    assert compared["recommendation_overlap@20"] > 0.99


def now():
    """Return a time that is later than that of every event so far: those have whole milliseconds."""
    time.sleep(0.01)
    return datetime.now(UTC).isoformat()


def wait_until_folded(up):
    wait_for(lambda: run(up, "status")["generations"]["g1"]["lanes"][0]["lag"] == 0)


def users_only_in(up, name):
    """Return how many users a generation has that the live one does not have."""
    return json.loads(headrace(up, "diff", "g1", name, "--json").stdout)["users"]["only_right"]


def test_a_replay_leaves_out_all_that_erased_users_did(shop):
    run(shop, "replay", "before")
    shop.events(*({"type": "view", "user": "leaver", "item": f"i{k % 60}", "country": "de"} for k in range(200)))
    shop.events({"type": "erasure", "user": "leaver"})
    wait_until_folded(shop)
    assert run(shop, "diff", "before", "g1", code=1)["items"]["differing"] > 0  # a row holds 50 events of the 200
    assert run(shop, "replay", "after")["erased_users"] == 1
    assert run(shop, "diff", "before", "after")["share_differing"] == 0


def test_who_is_erased_in_what_a_replay_leaves_out_is_not_in_it(shop):
    end = run(shop, "status")["generations"]["g1"]["lanes"][0]["positions"]["product-views:0"]
    shop.events({"type": "view", "user": "second", "item": "i1"}, {"type": "view", "user": "third", "item": "i1"})
    first_end = now()
    shop.events({"type": "erasure", "user": "second"})
    wait_until_folded(shop)
    run(shop, "replay", "range", "--offsets", f"product-views:0:{end - 10}-{end + 2}")
    assert users_only_in(shop, "range") == 0
    run(shop, "replay", "gap", "--to", first_end)
    shop.events({"type": "erasure", "user": "third"})
    wait_until_folded(shop)
    assert users_only_in(shop, "gap") == 0  # an erasure reaches the generations that nobody folds
    run(shop, "replay", "gap", "--from", now())
    assert users_only_in(shop, "gap") == 0


def test_a_switch_is_followed_by_server_and_flow_and_rolled_back(shop):
    run(shop, "replay", "g2", "--set", "weight_view=2")
    assert run(shop, "diff", "g1", "g2", code=1)["items"]["differing"] > 0
    assert run(shop, "switch", "g2") == {"live": "g2", "before": "g1"}
    wait_for(lambda: shop.recommend(user="u1")["generation"] == "g2", 5)
    shop.events({"type": "view", "user": "new", "item": "i1"})
    wait_for(lambda: shop.knows("new"))
    assert run(shop, "rollback") == {"live": "g1", "before": "g2"}
    wait_for(lambda: shop.recommend(user="new")["generation"] == "g1", 5)
    wait_for(lambda: shop.knows("new"))  # g1 catches up with what it missed
    refused = headrace(shop, "drop", "g1")
    assert refused.returncode == 1
    assert "live" in refused.stderr
    assert run(shop, "drop", "g2")["rows"] > 0
    assert "g2" not in run(shop, "status")["generations"]


def test_a_replay_of_a_range_folds_only_that_and_goes_on_after_a_stop(shop):
    done = run(shop, "replay", "part", "--offsets", "product-views:0:100-600", "--max-rate", "100000")
    assert (done["messages"], done["finished"]) == (500, True)
    again = run(shop, "replay", "part")
    assert (again["messages"], again["finished"]) == (0, True)
    positions = run(shop, "status")["generations"]["part"]["lanes"][0]["positions"]
    assert positions["product-views:0"] == 600


@pytest.mark.parametrize("driver", ["loop", "bytewax"])
def test_a_replay_is_no_faster_than_its_rate_on_either_driver(shop, driver):
    options = ("--offsets", "product-views:0:100-600", "--max-rate", "200", "--driver", driver)
    done = run(shop, "replay", f"slow-{driver}", *options)
    assert (done["messages"], done["finished"]) == (500, True)
    assert done["seconds"] > 1.9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "g1"], "live generation"),
        (["replay", "x", "--from", "yesterday"], "yesterday"),
        (["replay", "x", "--offsets", "nothing:0:1-2"], "nothing:0:1-2"),
        (["replay", "x", "--offsets", "ratings:0:1-9999999"], "ratings:0"),
        (["replay", "x", "--set", "http_port=1"], "http_port"),
        (["replay", "x", "--set", "n_lanes=none"], "n_lanes"),
        (["switch", "nowhere"], "no generation 'nowhere'"),
        (["diff", "g1", "nowhere"], "no generation 'nowhere'"),
    ],
)
def test_wrong_requests_are_refused_and_say_why(shop, arguments, said):
    done = headrace(shop, *arguments)
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_dead_letters_are_listed_shown_and_put_back(shop):
    from flows.log.contract import Message
    from flows.log.open_log import open_log

    log = open_log(f"sqlite:{shop.folder / 'log.sqlite'}")
    log.append([Message("ratings", None, b"broken", 0)])
    (letter,) = wait_for(lambda: run(shop, "dead-letters")["letters"])
    place = f"{letter['stream']}:{letter['offset']}"
    assert run(shop, "dead-letters", "show", place)["letters"][0]["reason"] == letter["reason"]
    end = log.end()["ratings:0"]
    run(shop, "dead-letters", "redrive", place)
    assert log.end()["ratings:0"] == end + 1
    log.close()


def test_the_commands_of_the_runbook_run(shop):
    """Each block of docs/runbook.md, in order, as it stands there."""
    blocks = re.findall(r"^    (\.venv/bin/headrace .*)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    assert len(blocks) >= 8
    environment = shop.environment | {"HEADRACE_REDIS_URL": shop.where["redis_url"]}
    for line in blocks:
        words = shlex.split(line, comments=True)
        command = [sys.executable, "-m", "headrace", *words[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 1) if words[1] == "diff" else done.returncode == 0, (line, done.stderr)
