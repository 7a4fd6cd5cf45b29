"""Made data: full histories of users and items, as if a past had been folded, and the events after it."""

from typing import Any

import numpy as np

from flows.log.contract import Log, Message
from schemas.events import Kind
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.rows import keys
from state.rows.item_rows import FLAG_LISTED, MAX_NEIGHBOURS, PAIR_UNIT, empty_items, pack_items
from state.rows.user_rows import MAX_HISTORY, empty_users, pack_users
from state.store.redis_store import RedisStore
from state.store.row_block import RowBlock, RowSet

CHUNK = 20_000
WARM_EVENTS = 60_000
"""Folded before the clock starts."""
START_MS = 1_760_000_000_000
"""Time of the first event after them."""
USER_SKEW, ITEM_SKEW = 0.8, 1.05


def zipf(rng: np.random.Generator, n: int, skew: float, size: int) -> np.ndarray[Any, Any]:
    """Return `size` numbers below n, k as likely as 1 / (k + 1)^skew."""
    share = 1.0 / np.arange(1, n + 1) ** skew
    return np.searchsorted(np.cumsum(share) / share.sum(), rng.random(size))


def fill_histories(store: RedisStore, prefix: bytes, user_hash: Any, item_hash: Any, rng: np.random.Generator) -> None:
    """Write full histories for all users and full rows for all items, as if a past had been folded."""
    for first in range(0, len(user_hash), CHUNK):
        ids = user_hash[first : first + CHUNK]
        users = empty_users(len(ids))
        users["n"][:], users["seen"][:] = MAX_HISTORY, MAX_HISTORY
        users["item"][:] = item_hash[zipf(rng, len(item_hash), ITEM_SKEW, len(ids) * MAX_HISTORY)].reshape(len(ids), -1)
        users["gap_ms"][:], users["kind"][:] = 600_000, Kind.VIEW
        users["last_ms"][:], users["first_ms"][:] = START_MS - 600_000, START_MS - 40_000_000
        rows = RowSet()
        rows.blocks.append(RowBlock(keys.user_prefix(prefix), ids, *pack_users(users, np.arange(len(ids)))))
        store.write(rows)
    for first in range(0, len(item_hash), CHUNK):
        ids = item_hash[first : first + CHUNK]
        items = empty_items(len(ids))
        items["n"][:], items["flags"][:], items["first_ms"][:] = MAX_NEIGHBOURS, FLAG_LISTED, START_MS - 40_000_000
        items["support"][:], items["count"][:], items["total"][:] = 100, 100, 100 * PAIR_UNIT
        items["neighbour"][:] = np.sort(rng.choice(item_hash, (len(ids), MAX_NEIGHBOURS)), axis=1)
        items["weight"][:] = rng.integers(1, 5 * PAIR_UNIT, items["weight"].shape)
        rows = RowSet()
        rows.blocks.append(RowBlock(keys.item_prefix(prefix), ids, *pack_items(items, np.arange(len(ids)))))
        store.write(rows)


def append_views(
    log: Log, n_events: int, n_users: int, n_items: int, rng: np.random.Generator, n_before: int = 0
) -> None:
    """Append views, a millisecond apart, of Zipf users and items; `n_before` were appended already."""
    registry = FolderRegistry()
    users, items = zipf(rng, n_users, USER_SKEW, n_events), zipf(rng, n_items, ITEM_SKEW, n_events)
    for first in range(0, n_events, CHUNK):
        messages = []
        for at in range(first, min(first + CHUNK, n_events)):
            n, item = n_before + at, int(items[at])
            record = {
                "event_id": f"{n:032x}", "ts_ms": START_MS + n, "user": f"user-{users[at]}", "session": f"s{users[at]}",
                "item": f"item-{item}", "price": 9.5, "category": f"department-{item % 20}/shelf-{item % 200}",
                "brand": f"brand-{item % 500}", "country": "DE", "context": {"page": "home", "device": "phone"},
            }  # fmt: skip
            messages.append(Message("product-views", b"", encode("product-views", record, registry), START_MS + n))
        log.append(messages)


def append_products(log: Log, n_items: int) -> None:
    """Append what the shop says of the items that are viewed."""
    registry = FolderRegistry()
    for first in range(0, n_items, CHUNK):
        messages = []
        for item in range(first, min(first + CHUNK, n_items)):
            record = {
                "item": f"item-{item}", "ts_ms": START_MS, "title": f"Thing number {item}", "price": 9.5, "stock": 10,
                "category": f"department-{item % 20}/shelf-{item % 200}", "brand": f"brand-{item % 500}",
            }  # fmt: skip
            value = encode("products", record, registry)
            messages.append(Message("products", str(record["item"]).encode(), value, START_MS))
        log.append(messages)
