"""The faults, each a play on a stage. Random moments come from the stage's seed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.log.kafka_topics import TIMEOUT_S as LOG_TIMEOUT_S
from flows.log.sqlite_log import SqliteLog
from headrace.torture.reference import PREFIX
from headrace.torture.stage import Stage
from headrace.torture.stream import REGISTRY, START_MS
from schemas.json_events import encode
from state.rows import keys
from state.store.redis_store import TIMEOUT_S as STORE_TIMEOUT_S

Play = Callable[[Stage, float], None]
"""Plays a fault; the number says how long outages last, in seconds."""

SEND_S = 3.0
PAST_S = 3.0
"""How much longer than a timeout what is to hang hangs."""


class Unproven(Exception):
    """The fault did not show what it should."""


def flow_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL at random moments, during start too."""
    stage.send(SEND_S)
    for _ in range(4):
        flow = stage.start_flow()
        stage.pause(0.2, 3.0)
        flow.end(signal.SIGKILL)
    stage.start_flow()


def commit_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL between the commit point and the seal of a large commit: the next owner finishes it."""
    client = _send_everything(stage)
    n_cut = 0
    for share in (0.0, 0.2, 0.4, 0.6):
        flow = stage.start_flow()
        stage.wait_for_share(share)
        _await_large_commit(client)
        flow.end(signal.SIGKILL)
        n_cut += client.exists(keys.redo(PREFIX))
    if not n_cut:
        raise Unproven("no kill fell into a commit")
    stage.start_flow()


def first_commit_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL of Redis in a lane's first commit, before it has any position; what was appended of it is lost."""
    client = _send_everything(stage)
    stage.start_flow()
    appended = next((stage.folder / "redis" / "appendonlydir").glob("*.incr.aof"))
    _await_large_commit(client)
    stage.redis.kill()
    if stage.random.random() < 0.7:
        os.truncate(appended, stage.random.randint(0, appended.stat().st_size))
    stage.redis.start()


def flow_stopped(stage: Stage, outage_s: float) -> None:
    """SIGTERM at random moments, during start too."""
    stage.send(SEND_S)
    for _ in range(3):
        flow = stage.start_flow()
        stage.pause(0.2, 3.0)
        flow.end(signal.SIGTERM)
    stage.start_flow()


def anchor_switch_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL while an anchor is refolded and switched."""
    flow = stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.3)
    for _ in range(2):
        environment = stage.environment | {"HEADRACE_FACTORS": "4", "HEADRACE_ALS_ITERATIONS": "2"}
        command = [sys.executable, "-m", "headrace", "anchor", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Unproven(f"no anchor: {done.stderr[-500:]}")
        stage.pause(0.0, 0.4)
        flow.end(signal.SIGKILL)
        flow = stage.start_flow()
    client: Any = stage.redis.client()
    _wait(lambda: client.get(keys.ANCHOR_LIVE) == client.get(keys.ANCHOR_PUBLISHED), "the anchor never went live")
    version = client.get(keys.ANCHOR_LIVE) or b""
    stage.settle()
    users = {key[-16:] for prefix in stage.prefixes for key in client.scan_iter(prefix + b"u:*")}
    vectors = {key[-16:] for prefix in stage.prefixes for key in client.scan_iter(prefix + b"v:" + version + b":*")}
    if users != vectors:
        raise Unproven(f"{len(users ^ vectors)} users without a vector or vectors without a user")


def redis_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL of Redis; up to a second of its append-only file is lost."""
    stage.start_flow()
    stage.send(2 * SEND_S)
    for share in (0.2, 0.5):
        stage.wait_for_share(share)
        appended = max((stage.folder / "redis" / "appendonlydir").glob("*.incr.aof"), key=os.path.getmtime)
        a_second_ago = appended.stat().st_size
        stage.pause(0.2, 1.0)
        stage.redis.kill()
        size = appended.stat().st_size
        os.truncate(appended, stage.random.randint(a_second_ago, size) if size > a_second_ago else size)
        stage.redis.start()


def redis_unreachable(stage: Stage, outage_s: float) -> None:
    """Redis does not answer for a while."""
    stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.2)
    assert stage.redis.process is not None
    stage.redis.process.send_signal(signal.SIGSTOP)
    time.sleep(outage_s)
    stage.redis.process.send_signal(signal.SIGCONT)


def redis_hung(stage: Stage, outage_s: float) -> None:
    """Redis does not answer for longer than a flow waits for it, in the middle of commits, twice."""
    stage.start_flow()
    stage.send(SEND_S)
    for share in (0.2, 0.6):
        stage.wait_for_share(share)
        assert stage.redis.process is not None
        stage.redis.process.send_signal(signal.SIGSTOP)
        time.sleep(max(outage_s, STORE_TIMEOUT_S + PAST_S))
        stage.redis.process.send_signal(signal.SIGCONT)


def redis_full(stage: Stage, outage_s: float) -> None:
    """Redis refuses writes: out of memory."""
    client = stage.redis.client()
    stage.start_flow()
    stage.send(SEND_S)
    for share in (0.2, 0.6):
        stage.wait_for_share(share)
        client.config_set("maxmemory", "1mb")
        time.sleep(outage_s / 2)
        client.config_set("maxmemory", "0")


def broker_killed(stage: Stage, outage_s: float) -> None:
    """SIGKILL of the broker, and its restart."""
    stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.2)
    stage.broker.kill()
    stage.pause(0.1, 1.0)
    stage.broker.start()


def broker_unreachable(stage: Stage, outage_s: float) -> None:
    """The broker does not answer for a while."""
    stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.2)
    stage.broker.send(signal.SIGSTOP)
    time.sleep(outage_s)
    stage.broker.send(signal.SIGCONT)


def broker_hung(stage: Stage, outage_s: float) -> None:
    """The broker does not answer for longer than a flow waits for it."""
    stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.2)
    stage.broker.send(signal.SIGSTOP)
    time.sleep(max(outage_s, LOG_TIMEOUT_S + PAST_S))
    stage.broker.send(signal.SIGCONT)


def retention_passed_the_flow(stage: Stage, outage_s: float) -> None:
    """The resume offset was deleted: the flow stops, names the repair in its log, and has changed nothing."""
    flow = stage.start_flow()
    stage.send(SEND_S)
    stage.wait_for_share(0.2)
    flow.end(signal.SIGTERM)
    before = stage.rows()
    _wait(lambda: stage.sent >= len(stage.stream), "not everything was sent")
    stage.log.retain(START_MS + 10**12)
    stopped = stage.start_flow()
    code, said = stopped.wait(), "".join(stopped.said)
    if code != 1 or "retention removed" not in said or "headrace replay" not in said:
        raise Unproven(f"the flow ended with {code} and said: {said[-500:]}")
    owners = {keys.owner(prefix) for prefix in stage.prefixes}
    if {key: value for key, value in stage.rows().items() if key not in owners} != before:
        raise Unproven("the flow changed rows after its position was lost")
    stage.stream.clear()


def zombie(stage: Stage, outage_s: float) -> None:
    """A flow is stopped (SIGSTOP), another one takes over, the first wakes up."""
    first = stage.start_flow("first")
    stage.send(SEND_S + outage_s)
    stage.wait_for_share(0.1)
    stage.start_flow("second")
    stage.pause(0.5, 1.5)
    first.send(signal.SIGSTOP)
    time.sleep(outage_s)
    first.send(signal.SIGCONT)


def two_owners(stage: Stage, outage_s: float) -> None:
    """Two flows under one name hold the same lease: every commit of one fences the other."""
    stage.send(SEND_S)
    for _ in range(2):
        stage.start_flow("twin")


def everything_at_once(stage: Stage, outage_s: float) -> None:
    """Flow, Redis and broker die in turn while two flows share the lane."""
    stage.start_flow("first")
    stage.start_flow("second")
    stage.send(2 * SEND_S)
    for _ in range(3):
        stage.pause(0.5, 2.0)
        which = stage.random.randrange(3)
        if which == 0:
            stage.flows[-1].end(signal.SIGKILL)
            stage.start_flow("third")
        elif which == 1:
            stage.redis.kill()
            stage.redis.start()
        else:
            stage.broker.kill()
            stage.broker.start()


def nothing(stage: Stage, outage_s: float) -> None:
    """The stream itself is the fault: repeated, shuffled or late events."""
    stage.start_flow()
    stage.send(SEND_S)


WRITER = """
import resource, sys
from flows.log.contract import LogUnavailable, Message
from flows.log.kafka_topics import TIMEOUT_S as LOG_TIMEOUT_S
from flows.log.sqlite_log import SqliteLog
log = SqliteLog(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
n = 0
while True:
    try:
        log.append([Message("product-views", b"k", b"%08d" % n + b"x" * 400, n)])
    except LogUnavailable as error:
        print("refused", error, flush=True)
        break
    n += 1
    print(n, flush=True)
"""


def disk_full(folder: Path, limit: int) -> dict[str, Any]:
    """Fill the embedded log's disk; return how many messages were acknowledged and how many are there."""
    path = folder / "full.sqlite"
    SqliteLog(path).close()
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + WRITER]
    done = subprocess.run([*command, str(path), str(limit)], capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("refused"):
        raise Unproven(f"the producer was not told: {done.stdout[-200:]} {done.stderr[-300:]}")
    log = SqliteLog(path)
    there = log.end()["product-views:0"]
    values = []
    positions = log.start()
    while (raw := log.read(positions, 1000, 0.0)) is not None:
        values += [int(raw.value(i)[:8]) for i in range(len(raw))]
        positions = raw.after
    record = {"event_id": "after", "ts_ms": START_MS, "user": "u", "item": "i"}
    from flows.log.contract import Message

    log.append([Message("product-views", b"k", encode("product-views", record, REGISTRY), START_MS)])
    log.close()
    return {"acknowledged": len(lines) - 1, "there": there, "in_order": values == list(range(there))}


def _send_everything(stage: Stage) -> Any:
    """Send the whole stream, so that the flow finds enough for large commits; return a client of its Redis."""
    stage.send(0.0)
    _wait(lambda: stage.sent >= len(stage.stream), "not everything was sent")
    return stage.redis.client()


def _await_large_commit(client: Any, seconds: float = 5.0) -> None:
    """Return while a large commit is under way, or when there was none for so long: nothing may be left to fold."""
    until = time.monotonic() + seconds
    while not client.exists(keys.redo(PREFIX)) and time.monotonic() < until:
        pass


def _wait(true: Callable[[], bool], otherwise: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Unproven(otherwise)
        time.sleep(0.05)


FAULTS: dict[str, tuple[Play, str]] = {
    "flow_killed": (flow_killed, "plain"),
    "commit_killed": (commit_killed, "plain"),
    "first_commit_killed": (first_commit_killed, "plain"),
    "flow_stopped": (flow_stopped, "plain"),
    "anchor_switch_killed": (anchor_switch_killed, "plain"),
    "redis_killed": (redis_killed, "plain"),
    "redis_unreachable": (redis_unreachable, "plain"),
    "redis_hung": (redis_hung, "plain"),
    "redis_full": (redis_full, "plain"),
    "broker_killed": (broker_killed, "plain"),
    "broker_unreachable": (broker_unreachable, "plain"),
    "broker_hung": (broker_hung, "plain"),
    "retention_passed_the_flow": (retention_passed_the_flow, "plain"),
    "two_owners": (two_owners, "plain"),
    "zombie": (zombie, "plain"),
    "events_thrice": (nothing, "thrice"),
    "events_shuffled": (nothing, "shuffled"),
    "events_late": (nothing, "late"),
    "everything_at_once": (everything_at_once, "thrice"),
}
"""Every fault and the stream it is played on; `disk_full` needs no broker and is played apart."""
