"""The sample shop: coherent, the same every time, ending now, and only for an empty installation."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from helpers.loading import HOUR_MS, NOW_MS

from flows.log.sqlite_log import SqliteLog
from headrace.cli.main import load_command
from headrace.sample.catalogue import CATEGORY_OF, ITEMS
from headrace.sample.fill import NotEmpty, fill, products
from headrace.sample.visitors import DAY_MS, behaviour
from schemas.json_events import event_from_json
from schemas.registry import FolderRegistry

EVENTS = behaviour(NOW_MS)


def test_sixty_products_with_everything_a_shop_shows():
    shelf = list(products(NOW_MS))
    assert len({one["item"] for one in shelf}) == 60
    for one in shelf:
        assert one["title"]
        assert one["price"] > 0
        assert one["image_url"].startswith("data:image/svg+xml,")
        event_from_json(one, NOW_MS, HOUR_MS)
    assert all(other in ITEMS for product in ITEMS.values() for other in product.with_it)


def test_two_hundred_visitors_in_two_months_that_end_now():
    assert len({event.get("user") or event.get("session") for event in EVENTS}) == 200
    times = [event["ts_ms"] for event in EVENTS]
    assert times == sorted(times)
    assert NOW_MS - 61 * DAY_MS < times[0] < NOW_MS - 55 * DAY_MS
    assert NOW_MS - 6 * HOUR_MS < times[-1] < NOW_MS
    assert len({event["event_id"] for event in EVENTS}) == len(EVENTS)
    for event in EVENTS:
        event_from_json(event, NOW_MS, HOUR_MS)


def test_the_same_seed_makes_the_same_shop():
    assert behaviour(NOW_MS) == EVENTS != behaviour(NOW_MS, seed=8)


def test_visitors_have_tastes_and_buy_again_what_is_used_up():
    of_ann = Counter(CATEGORY_OF[event["item"]] for event in EVENTS if event.get("user") == "ann" and "item" in event)
    assert of_ann["drinks/tea"] > sum(of_ann.values()) / 2
    bought = Counter(
        (event["user"], line["item"])
        for event in EVENTS if event["type"] == "purchase" and "user" in event for line in event["lines"]
    )  # fmt: skip
    again = [item for (_, item), n in bought.items() if n > 1]
    assert len(again) > 100
    assert all(ITEMS[item].lasts_days for item in again)


def test_it_fills_an_empty_log_and_no_other_unless_forced(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    command = load_command("headrace.cli", "load")
    done = CliRunner().invoke(command, ["--sample", "--json"])
    assert done.exit_code == 0, done.stderr
    log = SqliteLog(tmp_path / "log.sqlite")
    n_messages = sum(log.end().values())
    assert n_messages == json.loads(done.stdout)["loaded"] > 5000
    with pytest.raises(NotEmpty, match="already holds events"):
        fill(log, FolderRegistry(), NOW_MS)
    again = CliRunner().invoke(command, ["--sample"])
    assert (again.exit_code, sum(log.end().values())) == (1, n_messages)
    assert "already holds events" in again.stderr
    assert fill(log, FolderRegistry(), NOW_MS, force=True) > 5000
    log.close()
