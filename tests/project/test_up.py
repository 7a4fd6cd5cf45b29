"""`headrace up` as its user meets it: one process that keeps the others going."""

import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import redis
from helpers.up import HEADRACE, Up, run, views, wait_for

from schemas.ids import hash_id


def pss_mb(pid):
    """Return the memory of a process, shared pages by share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


@pytest.mark.redis
@pytest.mark.timeout(300)
def test_it_restarts_what_dies_switches_anchors_under_load_and_continues_where_it_stopped(tmp_path):
    with Up(tmp_path) as up:
        up.events(*views(400))
        wait_for(lambda: len(up.recommend(user="u1", count=5)["items"]) == 5)

        assert sum(map(pss_mb, up.processes())) < 1000
        outcomes, stopping = [], threading.Event()

        def hammer():
            while not stopping.is_set():
                try:
                    answer = up.recommend(user="u1", count=5)
                    outcomes.append((len(answer["items"]), answer["anchor"]))
                except OSError as error:
                    outcomes.append((0, repr(error)))

        thread = threading.Thread(target=hammer)
        thread.start()
        version = run(up, "anchor")["version"]
        wait_for(lambda: outcomes[-1][1] == version)
        stopping.set()
        thread.join()
        assert {n for n, _ in outcomes} == {5}  # not one request was dropped or left empty
        assert {anchor for _, anchor in outcomes} == {None, version}

        second = run(up, "anchor")["version"]
        wait_for(lambda: up.recommend(user="u1")["anchor"] == second)
        back = run(up, "anchor", "rollback")
        assert (back["live"], back["before"]) == (version, second)
        assert [one["live"] for one in run(up, "anchors")["anchors"]] == [True, False]
        wait_for(lambda: up.recommend(user="u1")["anchor"] == version)

        for name in ("flow", "serve"):
            at_work = up.at_work(name)
            os.kill(at_work, signal.SIGKILL)
            up.events_when_it_answers({"type": "view", "user": f"after {name}", "item": "i1"})
            wait_for(lambda name=name: up.knows(f"after {name}"))
            assert any(f"{name} ended with -9; starting it again" in line for line in up.said)
            assert wait_for(lambda name=name: up.at_work(name)) != at_work

        store = redis.Redis.from_url(up.where["redis_url"])
        assert store.ping()
        leaver = f"*{hash_id('leaver'):016x}"
        up.events(*({"type": kind, "user": "leaver", "item": "i1"} for kind in ("view", "purchase")))
        wait_for(lambda: len(store.keys(leaver)) == 3)  # the row, what was bought, the vector
        up.events({"type": "erasure", "user": "leaver"}, {"type": "view", "user": "leaver2", "item": "i1"})
        wait_for(lambda: not store.keys(leaver))
        assert up.recommend(user="leaver")["fallback"] != "personalised"
    assert "everything has stopped" in up.said[-1]
    with pytest.raises(urllib.error.URLError):
        up.recommend(user="u1")
    with pytest.raises(redis.ConnectionError):
        store.ping()

    with Up(tmp_path) as again:
        answer = again.recommend(user="after flow")
        assert (answer["fallback"], answer["anchor"]) == ("personalised", version)


@pytest.mark.redis
@pytest.mark.timeout(300)
def test_a_redis_that_is_killed_is_started_again_and_flow_and_server_go_on_by_themselves(tmp_path):
    with Up(tmp_path) as up:
        up.events(*views(100))
        wait_for(lambda: len(up.recommend(user="u1", count=5)["items"]) == 5)
        flow, server = up.at_work("flow"), up.at_work("serve")
        store = redis.Redis.from_url(up.where["redis_url"])
        for n in range(2):
            killed = store.info("server")["process_id"]
            os.kill(killed, signal.SIGKILL)
            up.events({"type": "view", "user": f"after {n}", "item": "i1"})
            assert len(up.recommend(user="u1", count=5)["items"]) == 5  # from memory, or again in full
            wait_for(lambda n=n: up.knows(f"after {n}"))
            assert store.info("server")["process_id"] != killed
        assert sum("redis ended with -9; starting it again" in line for line in up.said) == 2
        assert (up.at_work("flow"), up.at_work("serve")) == (flow, server)


@pytest.mark.redis
@pytest.mark.timeout(300)
def test_an_up_whose_folder_is_moved_away_stops_and_takes_no_more_events(tmp_path):
    folder = tmp_path / "data"
    with Up(folder) as up:
        up.events(*views(10))
        folder.rename(tmp_path / "elsewhere")
        assert up.process.wait(60) == 1
        up.kill()  # nothing is left to be stopped
    assert any("was removed or replaced" in line for line in up.said)
    with pytest.raises(urllib.error.URLError):
        up.events(*views(1))


@pytest.mark.redis
@pytest.mark.timeout(300)
def test_a_sample_shop_answers_at_once_and_every_line_that_up_prints_is_json(tmp_path):
    with Up(tmp_path, "--sample") as up:
        wait_for(lambda: up.recommend(count=5)["items"])
        assert all(one["title"] for one in up.recommend(count=5)["items"])
        end = run(up, "status")["generations"]["g1"]["lanes"][0]
        assert end["positions"]["product-updates:0"] == 60
    lines = [json.loads(line) for line in up.said]
    assert {line["process"] for line in lines} == {"up", "flow", "serve"}
    with Up(tmp_path, "--sample") as again:  # a log that has events is left as it is
        wait_for(lambda: run(again, "status")["well"])
        assert run(again, "status")["generations"]["g1"]["lanes"][0]["positions"] == end["positions"]


@pytest.mark.redis
def test_a_child_that_cannot_start_with_its_settings_stops_everything(tmp_path):
    (tmp_path / "id.key").write_text("junk")
    environment = Up(tmp_path).environment | {"HEADRACE_ID_KEY": ""}
    done = subprocess.run([*HEADRACE, "up"], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert "id.key" in done.stderr
    assert "starting it again" not in done.stderr
