"""Which cores the processes of a benchmark run on, what they use, and how long the machine keeps a core from them."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PROBE_S = 5.0
LEAST_PAUSE_S = 0.001
QUIET_S, QUIET_SHARE, PATIENCE_S = 2.0, 0.1, 300.0


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_redis(client: Any) -> float:
    """Return the seconds of CPU a Redis has used by its own account."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _descendants(pid: int) -> list[int]:
    children = [int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    return [*children, *(one for child in children for one in _descendants(child))]


def pin(server: int, cores: list[int]) -> str:
    """Give the server the first core and everything else the others, where there are others; say what was done."""
    if len(cores) < 2:
        return "everything on one core"
    for pid in (os.getpid(), *_descendants(os.getpid())):
        _give(pid, cores[:1] if pid == server else cores[1:])
    return "the server on one core of its own, the load, Redis and the flow on the other"


def wait_until_quiet(pids: Iterable[int]) -> None:
    """Wait until processes do next to nothing: for QUIET_S less than QUIET_SHARE of a core; PATIENCE_S at most."""
    deadline = time.monotonic() + PATIENCE_S
    pids, used = list(pids), float("inf")
    while used > QUIET_SHARE * QUIET_S and time.monotonic() < deadline:
        before = sum(map(cpu_s, pids))
        time.sleep(QUIET_S)
        used = sum(map(cpu_s, pids)) - before


def share(cores: list[int]) -> None:
    """Let this process and all below it run on all these cores."""
    for pid in (os.getpid(), *_descendants(os.getpid())):
        _give(pid, cores)


def _give(pid: int, cores: list[int]) -> None:
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def pauses(core: int) -> dict[str, float]:
    """Do nothing but look at the clock, on one core: what a host gives to others is what this misses.

    Returns the milliseconds of a second that went in pauses of more than one, and the longest: no answer that falls
    into it can be quicker.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    found = [0.0]
    last = started = time.perf_counter()
    while last < started + PROBE_S:
        now = time.perf_counter()
        if now > last + LEAST_PAUSE_S:
            found.append(now - last)
        last = now
    os.sched_setaffinity(0, before)
    return {"ms_per_s": round(sum(found) / PROBE_S * 1000, 2), "longest_ms": round(max(found) * 1000, 1)}


def listening(port: int) -> int:
    """Return how many sockets listen on a port: a server begins to listen when it is ready."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
