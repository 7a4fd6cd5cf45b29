"""The nightly training happens, once a night and once at first, and its failure harms nothing."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from helpers.up import Up, run, views, wait_for
from pydantic import ValidationError

from headrace.night import FIRST_EVENTS, is_due, next_night
from headrace.settings import Settings
from state.anchors.last_run import TrainingRun


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "zone", "found"),
    [
        ("2026-11-30T03:29:59", "UTC", "2026-11-30T03:30:00"),
        ("2026-11-30T03:30:00", "UTC", "2026-12-01T03:30:00"),
        ("2026-11-30T02:29:00", "Europe/Berlin", "2026-11-30T02:30:00"),
        ("2026-07-01T02:29:00", "Europe/Berlin", "2026-07-02T01:30:00"),
        ("2026-11-30T23:00:00", "Asia/Tokyo", "2026-12-01T18:30:00"),
    ],
)
def test_the_next_night_is_when_clocks_there_show_the_hour(now, zone, found):
    assert next_night(at(now), "03:30", zone) == at(found)


def test_a_night_in_which_clocks_change_has_one_training():
    moments, now = [], at("2026-10-24T12:00:00")
    for _ in range(3):  # clocks go back at 03:00 of the 25th, so that 02:30 comes twice
        now = next_night(now, "02:30", "Europe/Berlin")
        moments.append(now.date())
    assert moments == [datetime(2026, 10, 25).date() + timedelta(n) for n in range(3)]


@pytest.mark.parametrize(
    ("last", "events", "tried", "due"),
    [
        (None, FIRST_EVENTS - 1, 0, False), (None, FIRST_EVENTS, 0, True), (None, FIRST_EVENTS, FIRST_EVENTS, False),
        (None, 2 * FIRST_EVENTS, FIRST_EVENTS, True), ("too_little", FIRST_EVENTS, 0, True),
        ("published", 10**6, 0, False), ("refused", 10**6, 0, False), ("failed", 10**6, 0, False),
    ],
)  # fmt: skip
def test_a_first_training_is_due_when_there_is_enough_to_learn_from(last, events, tried, due):
    record = last and TrainingRun(at_ms=1, seconds=1, outcome=last)
    assert is_due(1000, 2000, record, events, tried) == due
    assert is_due(2000, 2000, record, events, tried)


@pytest.mark.parametrize("wrong", [{"night_at": "3:30"}, {"night_at": "24:00"}, {"night_zone": "Mars/Base"}])
def test_an_hour_or_a_zone_that_there_is_not_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_up_trains_when_there_is_first_enough_and_tells_how_it_ended_and_when_the_next_is(tmp_path):
    up = Up(tmp_path)
    soon = datetime.now(UTC) + timedelta(hours=3)
    up.environment |= {"HEADRACE_NIGHT_AT": f"{soon:%H:%M}", "HEADRACE_NIGHT_ZONE": "Etc/UTC"}
    with up:
        assert run(up, "status")["training"]["last"] is None
        up.events(*views(FIRST_EVENTS))
        version = wait_for(lambda: up.recommend(user="u1")["anchor"], 120)
        ended = next(json.loads(line) for line in wait_for(lambda: told(up, "training has ended")))
        assert (ended["process"], ended["exit_code"], ended["version"]) == ("up", 0, version)
        found = run(up, "status")
        last, due = found["training"]["last"], found["training"]["next"]
        assert (last["outcome"], last["version"]) == ("published", version)
        assert due["at_ms"] == int(soon.replace(second=0, microsecond=0).timestamp() * 1000)
        assert found["well"], found["verdict"]
        assert version in found["verdict"]


def told(up, event):
    return [line for line in up.said if event in line]
