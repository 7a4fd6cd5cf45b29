"""A store folded from a few events, for tests of the server."""

import time

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from helpers.fold_oracle import Event, batch_of
from schemas.events import Decoded, Kind, ProductChange

SETTINGS = LaneSettings(max_cached_users=200, max_cached_items=200, dedupe_window=2048)
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000


def fold_into(store, events, products=(), first=0):
    """Fold catalogue changes and then events into lane 0 of generation g1."""
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    decoded, raw = batch_of(events, first)
    changes = lane.apply(Decoded(decoded.interactions, list(products)), raw)
    store.commit(lane.prefix, changes.expected, changes.new, changes.rows)


def shop_events(now=NOW):
    """Ten visitors look at tea, then cups; one is in the middle of it; another bought tea long ago."""
    events = []
    for n in range(10):
        at = now - 86_400_000 + n * 60_000
        events += [Event(f"v{n}", "tea", at), Event(f"v{n}", "cup", at + 1000), Event(f"v{n}", f"other{n}", at + 2000)]
    events += [Event("ann", "tea", now - 5000)]
    events += [Event("bob", "tea", now - 9 * 86_400_000, Kind.PURCHASE), Event("bob", "old", now - 8 * 86_400_000)]
    return events


def product(item, title, **facts):
    return ProductChange(0, item, NOW, {"title": title, **facts})
