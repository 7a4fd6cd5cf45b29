"""What rows say of events, to compare those after an erasure with those of a shop that never saw the user."""

import numpy as np

from helpers.fold_oracle import EPOCH_MS
from helpers.lanes import PREFIX, SETTINGS, globals_of, item_row
from state.rows import keys, lane_rows
from state.rows.decay import value_at
from state.rows.purchase_rows import decode_purchase_totals

LATER_MS = EPOCH_MS + 30 * 86_400_000
NOT_OF_USERS = (lane_rows.FEED, lane_rows.DEDUPE, lane_rows.MAX_TS, lane_rows.LATE, lane_rows.DUPLICATES)
"""Totals that count messages and the catalogue; beside them popularity, which is compared by its value."""
STAYS = range(lane_rows.PRICES, lane_rows.PRICES + lane_rows.N_PRICE_BUCKETS)
"""What an erasure leaves, as docs/operate.md says: a user's row does not hold the price of each event."""


def values_of(epochs, sums, now_ms=LATER_MS):
    """Return decayed sums at both half-lives as of one moment."""
    half_lives = (SETTINGS.short_half_life_ms, SETTINGS.long_half_life_ms)
    return [value_at(int(epochs[h]), int(sums[h][0]), int(sums[h][1]), half_lives[h], now_ms) for h in range(2)]


def seen_of(store, item, now_ms=LATER_MS):
    """Return what an item's row counts: pairs, counters, popularity as a value."""
    row = item_row(store, item)[0]
    n = int(row["n"])
    pairs = {int(row["neighbour"][j]): row["weight"][:, j].tolist() for j in range(n)}
    counts = [row[name].tolist() for name in ("total", "support", "repeat", "count", "kinds")]
    return pairs, counts, np.round(values_of(row["pop_epoch"], row["pop"], now_ms), 9).tolist()


def totals_of(store, now_ms=LATER_MS):
    """Return what a lane's globals count of users, and popularity as a value."""
    totals = globals_of(store).copy()
    pop = totals[lane_rows.POP : lane_rows.POP + 6].reshape(2, 3)
    values = values_of(pop[:, 0], pop[:, 1:], now_ms)
    totals[[*NOT_OF_USERS, *STAYS, *range(lane_rows.POP, lane_rows.POP + 6)]] = 0
    return totals.tolist(), np.round(values, 9).tolist()


def purchase_totals(store):
    return decode_purchase_totals([store.rows.get(keys.purchase_totals(PREFIX))]).tolist()


def the_same(store, without, items, now_ms=LATER_MS, within=0.0):
    """Assert that both stores count the same of these items; popularity may differ by `within`."""
    for item in items:
        *counts, popularity = seen_of(store, item, now_ms)
        *wanted, wanted_popularity = seen_of(without, item, now_ms)
        assert counts == wanted, item
        assert np.allclose(popularity, wanted_popularity, rtol=0, atol=within), item
    counts, popularity = totals_of(store, now_ms)
    wanted, wanted_popularity = totals_of(without, now_ms)
    assert counts == wanted
    assert np.allclose(popularity, wanted_popularity, rtol=0, atol=within)
    assert purchase_totals(store) == purchase_totals(without)
