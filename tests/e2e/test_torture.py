"""The short form of `headrace torture`: every fault once."""

import pytest

from headrace.torture.faults import FAULTS
from headrace.torture.fuzz import fuzz
from headrace.torture.run import torture

pytestmark = [pytest.mark.e2e, pytest.mark.redis, pytest.mark.kafka, pytest.mark.timeout(600)]


def test_the_rows_after_every_fault_are_those_of_an_undisturbed_run():
    found = torture([*FAULTS, "disk_full"], rounds=1, seed=1, outage_s=3.0)
    for fault in found:
        counts = [fault[name] for name in ("rows_different", "events_lost", "events_doubled")]
        assert counts == [0, 0, 0], fault
        assert fault["rows_compared"] > 50 or fault["fault"] == "retention_passed_the_flow"


def test_a_million_damaged_messages_crash_nothing_and_cost_no_good_one_anything():
    found = fuzz(1_000_000, seed=1)
    assert found["messages"] == 1_000_000
    assert (found["good_refused"], found["good_changed"]) == (0, 0)
    assert found["refused"] == sum(found["reasons"].values()) > 300_000
