"""The report of an experiment, from a log with impressions and purchases whose outcome is known."""

import time

import numpy as np
import pytest

from batch.evaluation.experiment_report import compared, read_log, report, wilson
from flows.log.contract import LogUnavailable, Message
from flows.log.sqlite_log import SqliteLog
from schemas.avro_decoder import Limits
from schemas.events import Kind
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from serving.rules.experiments import Experiment

NOW = time.time_ns() // 1_000_000
HOUR = 3_600_000
EXPERIMENT = Experiment(id="e1", arms=[{"name": "old"}, {"name": "new"}])
REGISTRY = FolderRegistry()


def shown(visitor, arm, at=NOW - 10 * HOUR, request="r", **who):
    who = who or {"user": visitor}
    record = {"event_id": f"{visitor}-{request}-{at}", "ts_ms": at, "request_id": f"{request}-{visitor}", "item": "i",
              "position": 1, "source": "popular", "arm": arm, **who}  # fmt: skip
    return Message("impressions", b"", encode("impressions", record, REGISTRY), at)


def bought(visitor, at, event_id=None, **who):
    who = who or {"user": visitor}
    record = {"event_id": event_id or f"buy-{visitor}-{at}", "ts_ms": at, "order_id": "o", **who,
              "lines": [{"item": "i", "quantity": 1.0}]}  # fmt: skip
    return Message("purchases", b"", encode("purchases", record, REGISTRY), at)


def measured(tmp_path, messages, within=2 * HOUR):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append(messages)
    seen = read_log(log, REGISTRY, "e1", int(Kind.PURCHASE), NOW, Limits(), 5, lambda n: None)
    log.close()
    return report(EXPERIMENT, seen, within)


def test_conversions_are_counted_by_arm_from_the_first_list_on(tmp_path):
    start = NOW - 10 * HOUR
    messages = []
    for n in range(400):
        arm = "new" if n % 2 else "old"
        messages += [shown(f"u{n}", f"other:x,e1:{arm}"), shown(f"u{n}", f"e1:{arm}", start + 60_000, "again")]
        if n % (4 if n % 2 else 10) == n % 2:  # every second of the new arm, every fifth of the old one
            messages += [bought(f"u{n}", start + HOUR, f"b{n}"), bought(f"u{n}", start + HOUR, f"b{n}")]
    messages += [bought("u1", start - 1), bought("u3", start + 3 * HOUR), bought("u5", start + 3 * HOUR)]
    messages += [shown("nobody", None), shown("elsewhere", "e2:new"), bought("stranger", start)]
    found = measured(tmp_path, messages)
    old, new = found["arms"]
    assert (old["arm"], old["visitors"], old["lists"], old["converted"]) == ("old", 200, 400, 40)
    assert (new["visitors"], new["converted"], new["rate"]) == (200, 100, 0.5)
    assert new["difference"] == pytest.approx(0.3)
    assert new["difference_low"] < 0.3 < new["difference_high"]
    assert new["lift"] == pytest.approx(1.5)
    assert new["p_value"] < 1e-8
    assert not found["split_is_suspect"]


def test_sessions_count_and_visitors_of_two_arms_do_not(tmp_path):
    start = NOW - 10 * HOUR
    found = measured(tmp_path, [
        shown("s", "e1:old", session="s1"), bought("s", start + 1, session="s1"),
        shown("m", "e1:old"), shown("m", "e1:new", request="later"),
    ])  # fmt: skip
    assert [arm["visitors"] for arm in found["arms"]] == [1, 0]
    assert (found["arms"][0]["converted"], found["visitors_in_several_arms"]) == (1, 1)


def test_an_uneven_split_is_suspect(tmp_path):
    assert measured(tmp_path, [shown(f"u{n}", "e1:old" if n % 4 else "e1:new") for n in range(200)])["split_is_suspect"]


def test_an_empty_log_is_reported(tmp_path):
    found = measured(tmp_path, [])
    assert [arm["visitors"] for arm in found["arms"]] == [0, 0]
    assert not found["split_is_suspect"]


def test_intervals_of_differences_cover_the_truth():
    rng, covered = np.random.default_rng(3), 0
    for _ in range(300):
        k_0, k = rng.binomial(300, 0.1), rng.binomial(300, 0.16)
        arm = compared("new", 0, 300, int(k), 300, int(k_0), False)
        covered += arm["difference_low"] <= 0.06 <= arm["difference_high"]
    assert 0.92 < covered / 300 < 0.99
    assert wilson(0, 10)[0] == 0.0


def test_impressions_that_cannot_be_read_are_counted_and_harm_no_others(tmp_path):
    at = NOW - 10 * HOUR
    good = shown("u", "e1:old")
    values = (b"", b"\x00\x00", good.value[:7], b"no avro", b"\x00\xff\xff\xff\xff1")
    broken = [good._replace(value=value) for value in values]
    other = [good._replace(value=bought("w", at).value)]
    found = measured(tmp_path, [*broken, good, *other, bought("u", at + 60_000)])
    assert found["unreadable_impressions"] == 6
    assert (found["arms"][0]["visitors"], found["arms"][0]["converted"]) == (1, 1)


def test_a_report_of_a_log_that_cannot_be_read_to_its_end_fails(tmp_path):
    class Stuck(SqliteLog):
        """A log of which one stream does not come, as of a partition without a leader."""

        def end(self):
            return {**super().end(), "purchases:0": 5}

    log = Stuck(tmp_path / "log.sqlite")
    log.append([shown("u", "e1:old")])
    with pytest.raises(LogUnavailable, match="purchases:0 stands at 0 of 5"):
        read_log(log, REGISTRY, "e1", int(Kind.PURCHASE), NOW, Limits(), 0.3, lambda n: None)
    log.close()
