"""What holds in every test: one id key, plain logs, no skip that is not listed, no process without its marker."""

import fnmatch
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from schemas.ids import use_key

# The first example of a test compiles kernels, so a wall-clock deadline says nothing.
settings.register_profile("headrace", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("nightly", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "headrace"))

# One key for the tests and the programs that they start, so that tests know the names of rows.
ID_KEY = bytes(range(16))
os.environ["HEADRACE_ID_KEY"] = ID_KEY.hex()
use_key(ID_KEY)

# As programs log: rich traces would print whole tables of rows, for minutes.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])

SKIPS = tomllib.loads((Path(__file__).parent / "skips.toml").read_text())["skip"]
STARTS = {
    "redis": ("redis-server", "valkey-server"),
    "kafka": ("java",),
    "browser": ("chromium",),
    "s3": ("moto_server",),
}
"""Markers, and the programs that only tests with that marker start."""
OF_PROCESSES = {"redis", "kafka", "bytewax", "e2e", "browser", "s3"}
"""Markers that imply `process`."""


LAW = re.compile(r"test_law_(\d)_")
"""The names of tests that hold a law of the design; others have the marker."""


def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.get_closest_marker(name) for name in OF_PROCESSES):
            item.add_marker("process")
        if named := LAW.match(item.name):
            item.add_marker(pytest.mark.law(n=int(named[1])))


def is_listed(test, reason):
    """Return whether `skips.toml` allows a test to be skipped for a reason."""
    return any(fnmatch.fnmatch(test.removeprefix("tests/"), one["test"]) and one["says"] in reason for one in SKIPS)


def fail_unlisted_skip(report):
    """Make a report of a skip that is not listed one of a failure."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not is_listed(report.nodeid, reason):
            report.outcome, report.longrepr = "failed", f"a skip that tests/skips.toml does not list: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_unlisted_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_unlisted_skip((yield))


class Running:
    """The test that runs, for the audit hook, which cannot be removed."""

    item, wrong = None, ()


def watch_processes(event, arguments):
    """Note each program that the running test starts without the marker for it."""
    if event != "subprocess.Popen" or Running.item is None:
        return
    program = Path(os.fsdecode(arguments[0])).name
    needed = {"process", *(marker for marker, names in STARTS.items() if program in names)}
    missing = sorted(needed - {mark.name for mark in Running.item.iter_markers()})
    if missing:
        Running.wrong = (*Running.wrong, f"started {program} without the marker {', '.join(missing)}")


sys.addaudithook(watch_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    Running.item, Running.wrong = item, ()
    try:
        return (yield)
    finally:
        Running.item = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    outcome = yield
    assert not Running.wrong, "; ".join(dict.fromkeys(Running.wrong))
    return outcome
