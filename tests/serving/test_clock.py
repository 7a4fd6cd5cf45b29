"""Time is an argument: only the edges read the clock, and what lies below them answers as of the time it is given."""

import ast
from pathlib import Path

import numpy as np
from helpers.fold_oracle import Event
from helpers.recommenders import ask, recommender_of
from helpers.serving_rows import DAY, NOW

import serving

EDGES = {"engine/clock.py", "engine/impression_log.py"}
"""`impression_log` notes when a list was shown, for the log."""
DURATIONS = {"app/server.py", "app/follower.py", "http/events_api.py"}
"""May ask how much time has passed."""


def test_only_the_edges_read_the_clock():
    readers, folder = set(), Path(serving.__file__).parent
    for path in folder.rglob("*.py"):
        name = str(path.relative_to(folder))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now"):
                readers.add(name)
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.monotonic":
                assert name in DURATIONS, name
    assert readers == EDGES


def trends(recommender):
    popular = recommender.shop.popular
    return dict(zip(popular.hashes.tolist(), popular.trend.tolist(), strict=True))


def test_trends_are_those_of_the_time_that_is_given():
    """One item sells evenly for weeks; another only today: it trends today, and no more in a month."""
    events = [Event(f"v{n}", "steady", NOW - n * DAY // 4) for n in range(160)]
    events += [Event(f"w{n}", "burst", NOW - n * 1000) for n in range(20)]
    recommender, _ = recommender_of(sorted(events, key=lambda event: event.ts_ms))
    trends_now = dict(
        zip(recommender.shop.popular.hashes.tolist(), recommender.shop.popular.trend.tolist(), strict=True)
    )
    recommender.refresh(NOW + 30 * DAY)
    later = trends(recommender)
    assert max(trends_now.values()) > 1
    assert all(later[item] < trends_now[item] - 5 for item in later)
    assert not len(recommender.shop.trending)
    assert np.isfinite(list(later.values())).all()
    assert ask(recommender, strategy="trending", count=2).items
