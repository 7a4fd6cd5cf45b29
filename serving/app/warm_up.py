"""A shop of a few items that is asked for everything before a server says that it is ready.

A kernel is compiled when it is first called with arrays of some types, which takes seconds where no compiled one is
kept. A shop may be empty when its server starts; so everything a request needs is first tried on this one.
"""

from functools import cache

import numpy as np
import orjson

from schemas.compiled.kept import mark_compiled
from schemas.events import Kind
from schemas.ids import hash_id, hash_ids
from serving.engine.recommender import Recommender
from serving.rendering.answer_bytes import answer_json, answer_message
from serving.request.requests import Filters, RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.model import Book, Boost, Cap
from serving.settings import ServingSettings
from state.rows import keys, lane_rows
from state.rows.item_rows import empty_items, encode_items
from state.rows.purchase_rows import empty_purchases, pack_purchases
from state.rows.row_codec import unpack_rows
from state.rows.user_rows import empty_users, encode_users
from state.store.contract import MemoryStore

NOW_MS = 1_800_000_000_000
GENERATION = "warm-up"
ITEMS = [f"item-{n}" for n in range(12)]
BOOK = Book(
    rules=(
        Boost(id="boost", action="boost", where="price > 3", factor=2.0, placements=("search",)),
        Cap(id="cap", action="cap", by="brand", most=1, first=2, placements=("email",)),
    )
)
ASKED = [
    RecommendRequest(user="visitor", count=3),
    RecommendRequest(user="visitor", count=3, placement="search"),
    RecommendRequest(user="visitor", count=3, placement="email"),
    RecommendRequest(user="visitor", count=3, filters=Filters(min_price=1)),
    RecommendRequest(user="visitor", count=3, strategy="new", exclude=ITEMS[:2], explain=True),
    RecommendRequest(user="customer", count=12),
    *(RecommendRequest(items=ITEMS[:1], count=3, diversity=0.5, diversity_method=method) for method in ("mmr", "dpp")),
    RecommendRequest(user="nobody", count=3, exclude=ITEMS[:1]),
    RecommendRequest(count=3, strategy="popular"),
]


@cache
def warm_up() -> None:
    """Once in a process: compile what requests need, or load what is kept of earlier programs."""
    recommender = Recommender(_little_shop(), ServingSettings(server_cached_items=1000, n_lanes=1), GENERATION)
    recommender.refresh(NOW_MS)
    for asked in (ASKED, ASKED[-1:]):
        for answer in recommender.recommend(asked, NOW_MS, Compiled(BOOK)):
            answer_json(answer), answer_message(answer)
    for request in ASKED:
        recommender.from_memory(request, NOW_MS)
    two_lanes = Recommender(_little_shop(), ServingSettings(server_cached_items=1000, n_lanes=2), GENERATION)
    two_lanes.refresh(NOW_MS)
    two_lanes.recommend(ASKED, NOW_MS)
    mark_compiled("serve")


def _little_shop() -> MemoryStore:
    """Return a store with a visitor in a session and a customer of long ago."""
    store, prefix = MemoryStore(), keys.prefix(GENERATION, 0)
    hashes = hash_ids(ITEMS)
    by_hash = np.sort(hashes)
    n, two, first = len(ITEMS), np.arange(2), np.zeros(1, np.int64)
    items, users, bought = empty_items(n), empty_users(2), empty_purchases(1)
    items["support"], items["count"], items["total"] = 4, 400, 3000
    items["n"], items["neighbour"][:, :n] = n, by_hash
    items["weight"][:, :, :n] = 100 + 7 * np.arange(n)  # no ties
    users["n"], users["seen"], users["item"][:, :3], users["gap_ms"][:, 1:3] = 3, 3, hashes[:3], 1000
    users["kind"][:, :3] = Kind.VIEW, Kind.DISLIKE, Kind.PURCHASE
    users["last_ms"] = NOW_MS - 1000, NOW_MS - 40 * 86_400_000
    bought.n[0], bought.item[0, 0], bought.times[0, 0] = 1, hashes[2], 2
    totals = np.zeros(lane_rows.SIZE, np.int64)
    totals[lane_rows.FEED], totals[[lane_rows.SESSIONS, lane_rows.EVENTS, lane_rows.COUNT]] = n, 100
    weights = np.full(n, 1.0, np.float32)
    visitor, customer = hash_id("visitor"), hash_id("customer")
    encoded = list(zip(hashes.tolist(), encode_items(items, np.arange(n)), strict=True))
    lanes = [prefix, keys.prefix(GENERATION, 1)]
    rows = {keys.item(lane, item): row for lane in lanes for item, row in encoded}
    rows |= dict(zip([keys.user(prefix, one) for one in (visitor, customer)], encode_users(users, two), strict=True))
    rows[keys.purchases(prefix, customer)] = unpack_rows(pack_purchases(bought, first))[0]
    rows[keys.feed(prefix, 0)] = lane_rows.encode_feed(ITEMS)
    rows[keys.lane_globals(prefix)] = lane_rows.encode_globals(totals)
    everything = lane_rows.encode_scope(lane_rows.ScopeList(by_hash, weights, weights))
    rows[keys.scope(prefix, lane_rows.scope_hash(lane_rows.ALL, 0))] = everything
    for k, item in enumerate(hashes.tolist()):
        rows[keys.product(prefix, item)] = orjson.dumps({"title": ITEMS[k], "brand": f"b{k % 3}", "price": float(k)})
    store.write(rows)
    return store
