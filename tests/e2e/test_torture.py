"""The short form of `headrace torture`: the faults that differ most, once. `make nightly` plays them all."""

import pytest

from headrace.torture.faults import FAULTS
from headrace.torture.fuzz import fuzz
from headrace.torture.run import torture

SHORT = [
    "flow_killed", "commit_killed", "anchor_switch_killed", "redis_hung", "broker_killed", "retention_passed_the_flow",
    "two_owners", "zombie", "everything_at_once", "disk_full",
]  # fmt: skip


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.kafka
@pytest.mark.law(n=1)
@pytest.mark.timeout(600)
def test_the_rows_after_a_fault_are_those_of_an_undisturbed_run():
    assert set(SHORT) <= {*FAULTS, "disk_full"}
    found = torture(SHORT, rounds=1, seed=1, outage_s=3.0, drivers=["loop"])
    assert [fault["fault"] for fault in found] == SHORT
    for fault in found:
        counts = [fault[name] for name in ("rows_different", "events_lost", "events_doubled")]
        assert counts == [0, 0, 0], fault
        assert fault["rows_compared"] > 50 or fault["fault"] == "retention_passed_the_flow"


@pytest.mark.slow
def test_damaged_messages_crash_nothing_and_cost_no_good_one_anything():
    found = fuzz(100_000, seed=1)
    assert found["messages"] == 100_000
    assert (found["good_refused"], found["good_changed"]) == (0, 0)
    assert found["refused"] == sum(found["reasons"].values()) > 30_000
