"""Which cores the processes of a benchmark run on, and what they use."""

import contextlib
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


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


def share(cores: list[int]) -> None:
    """Let this process and all below it run on all these cores."""
    for pid in (os.getpid(), *_descendants(os.getpid())):
        _give(pid, cores)


def _give(pid: int, cores: list[int]) -> None:
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def listening(port: int) -> int:
    """Return how many sockets listen on a port: a server begins to listen when it is ready."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
