"""The flow's health endpoint: ready while it folds or stands by, and why it is not."""

import json
import time
import urllib.error
import urllib.request

import pytest

from flows.health import STUCK_S, Health
from flows.health_server import own_metrics, start_health_server
from state.ports import free_port


@pytest.mark.parametrize(
    ("state", "age_s", "ready"),
    [("starting", 0, False), ("folding", 0, True), ("standby", 0, True), ("away", 0, False), ("stopped", 0, False),
     ("folding", STUCK_S - 1, True), ("folding", STUCK_S + 1, False)],
)  # fmt: skip
def test_a_flow_is_ready_while_its_loop_turns_and_nothing_is_away(state, age_s, ready):
    assert Health(state=state, turned_s=time.monotonic() - age_s).is_ready() == ready


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_port_answers_alive_ready_and_the_flows_own_metrics():
    health, port = Health(), free_port()
    start_health_server(port, "127.0.0.1", health)
    assert ask(port, "/healthz") == (200, b'{"status":"alive"}')
    status, body = ask(port, "/readyz")
    assert (status, json.loads(body)["state"]) == (503, "starting")
    health.state, health.turned_s, health.lanes, health.lag = "folding", time.monotonic(), [0], 0
    health.committed_s = time.monotonic() - 5
    status, body = ask(port, "/readyz")
    found = json.loads(body)
    assert (status, found["ready"], found["lanes"], found["last_commit_s"]) == (200, True, [0], pytest.approx(5, abs=1))
    health.state, health.reason = "away", "Redis does not answer"
    status, body = ask(port, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "Redis does not answer")
    names = {line.split("{")[0].split()[0] for line in ask(port, "/metrics")[1].decode().splitlines() if line[0] != "#"}
    assert "headrace_messages_total" in names
    assert "headrace_answers_total" not in names
    assert {family.name for family in own_metrics().collect()} >= {"headrace_lag_messages", "headrace_anchor_fetches"}
