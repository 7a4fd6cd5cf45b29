"""What the benchmarks of a running product share: `headrace up` in a folder of its own, and how figures are printed."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
from rich.console import Console
from rich.table import Table

from headrace.console import print_json
from headrace.run_file import read_run_file
from headrace.settings import OWN_PARTS
from state.rows import keys
from state.settings import PREFIX
from state.store.contract import Positions, decode_positions

HEADRACE = [sys.executable, "-m", "headrace"]
START_S = 300.0
"""On a new machine all kernels are compiled first."""


class NotStarted(Exception):
    """`headrace up` ended, or was not ready in time."""


class Running(NamedTuple):
    """A product that runs: where it answers, and the environment its other commands need."""

    folder: Path
    where: dict[str, Any]
    environment: dict[str, str]

    def pid(self, name: str) -> int:
        """Return the process at work now as `flow` or `serve`."""
        return int((read_run_file(self.folder) or self.where)["pids"][name])

    def wait_until_folded(self, end: Positions) -> None:
        """Wait until the flow has committed everything before `end`."""
        client: Any = redis.Redis.from_url(self.where["redis_url"])
        while decode_positions(client.get(keys.positions(keys.prefix("g1", 0)))) != end:
            time.sleep(0.2)


@contextmanager
def everything_up(folder: Path, log_address: str, redis_url: str = "") -> Iterator[Running]:
    """Start flow, server and, without a `redis_url`, Redis on free ports; stop them at the end. Raises NotStarted."""
    environment = {
        **os.environ, **OWN_PARTS, f"{PREFIX}DATA_DIR": str(folder), f"{PREFIX}LOG_URL": log_address,
        f"{PREFIX}REDIS_URL": redis_url, f"{PREFIX}LOG_LEVEL": "warning", f"{PREFIX}HTTP_PORT": "0",
        f"{PREFIX}GRPC_PORT": "0", f"{PREFIX}FLOW_METRICS_PORT": "0", f"{PREFIX}NIGHT_AT": "off",
    }  # fmt: skip
    supervisor = subprocess.Popen([*HEADRACE, "up"], env=environment)
    try:
        deadline = time.monotonic() + START_S
        while (where := read_run_file(folder)) is None:
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise NotStarted("`headrace up` did not start")
            time.sleep(0.1)
        yield Running(folder, where, environment | {f"{PREFIX}REDIS_URL": where["redis_url"]})
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(60)


def median_run(runs: list[dict[str, Any]], by: str, *also: str) -> dict[str, Any]:
    """Return the run with the median of a figure (the lower of two), and beside it that and other figures of all runs.

    >>> median_run([{"rate": 3, "us": 7}, {"rate": 1, "us": 9}, {"rate": 2, "us": 8}], "rate", "us")
    {'rate': 2, 'us': 8, 'rate_of_runs': [3, 1, 2], 'us_of_runs': [7, 9, 8]}
    """
    median = sorted(runs, key=lambda run: float(run[by]))[(len(runs) - 1) // 2]
    of_runs = {f"{name}_of_runs": [run[name] for run in runs] for name in (by, *also)}
    return median | of_runs if len(runs) > 1 else median


def machine() -> str:
    """Return what a figure was measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def print_figures(figures: dict[str, Any], title: str, json: bool) -> None:
    """Print figures as one JSON object, or as a table."""
    if json:
        print_json(figures)
        return
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        table.add_row(key, f"{value:,.2f}" if isinstance(value, float) else str(value))
    Console().print(table)
