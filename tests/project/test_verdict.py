"""The verdict of `headrace status`: all is well, or what is wrong and the command that mends it."""

import json
import os
import signal
import subprocess

import pytest
from helpers.up import HEADRACE

from headrace.cli.verdict import verdict
from state.anchors.last_run import NextRun, TrainingRun
from state.embedded_redis import EmbeddedRedis

HOUR = 3_600_000
NOW = 1_800_000_000_000


def found(owner="up", lag=0, live="g1", anchor=None, last=None, due=None, **more):
    lanes = [{"lane": 0, "owner": owner, "lag": lag}]
    training = {"last": last and last.model_dump(), "next": due and due.model_dump()}
    return {"live": live, "anchor": anchor, "anchor_published": anchor, "training": training,
            "generations": {"g1": {"lanes": lanes}}, **more}  # fmt: skip


def ended(outcome, message=""):
    return TrainingRun(at_ms=NOW - HOUR, seconds=3, outcome=outcome, message=message)


def due_at(ms):
    return NextRun(at_ms=ms, night_at="03:30", zone="UTC")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (found(), "g1 is folded up to the last message, no anchor yet"),
        (found(lag=1200), "1,200 messages behind"),
        (found(anchor="a1"), "anchor a1 is live"),
        (found(last=ended("refused", "worse than a1")), "published nothing (worse than a1)"),
        (found(last=ended("too_little", "two events")), "published nothing (two events)"),
        (found(due=due_at(NOW + HOUR)), "the next training is at 2027-01-15 09:00 UTC"),
        (found(server="http://x", server_ready=True), "all is well"),
    ],
)
def test_what_passes_by_itself_is_well(status, said):
    well, sentence = verdict(status, NOW)
    assert well
    assert sentence.startswith("all is well")
    assert said in sentence


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (found(live=None), "no flow has run yet: start `headrace up`"),
        (found(owner=None, lag=7), "no flow folds lane 0 of g1 (7 messages wait): start `headrace flow`"),
        (found(last=ended("failed", "no room")), "failed (no room): `headrace anchor` tries again"),
        (found(due=due_at(NOW - 7 * HOUR)), "did not happen: start `headrace up`, or `headrace night`"),
        (found(server="http://x", server_ready=False), "the server at http://x is not ready"),
    ],
)
def test_what_is_wrong_is_named_with_the_command_that_mends_it(status, said):
    well, sentence = verdict(status, NOW)
    assert not well
    assert said in sentence


@pytest.mark.redis
def test_a_redis_that_hangs_is_said_and_status_ends(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        environment = os.environ | {"HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_REDIS_URL": server.url}
        server.process.send_signal(signal.SIGSTOP)
        try:
            done = subprocess.run([*HEADRACE, "status", "--json"], env=environment, capture_output=True, text=True,
                                  timeout=100, check=False)  # fmt: skip
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert done.returncode == 3
    assert json.loads(done.stdout)["well"] is False
