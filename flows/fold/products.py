"""Catalogue changes, and the feed from which servers read the ids of all items."""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from flows.fold.item_table import ItemTable
from flows.fold.top_lists import ScopeFold
from schemas.events import ProductChange
from schemas.ids import hash_id, hash_ids
from state.rows import keys
from state.rows.item_rows import FLAG_LISTED, FLAG_PRODUCT
from state.rows.lane_rows import FEED, FEED_CHUNK, decode_feed, encode_feed
from state.store.contract import Store

Rows = dict[bytes, bytes | None]


def encode_product(item: str, ts_ms: int, product: dict[str, Any] | None) -> bytes:
    """Return a product row: JSON with sorted names; `{"gone": true}` for an item taken away."""
    body = {"gone": True} if product is None else product
    return orjson.dumps({**body, "item": item, "ts_ms": ts_ms}, option=orjson.OPT_SORT_KEYS)


class ProductFold:
    """Writes product rows and appends to the item feed.

    The feed is a list of item ids in chunks of FEED_CHUNK: an id is appended when
    the item is first seen and each time its product changes. A server that knows
    how far it has read needs only what came after.
    """

    def __init__(self, store: Store, lane_prefix: bytes) -> None:
        self._store, self._prefix = store, lane_prefix
        self._chunk: list[str] = []
        self._pending: list[str] = []

    def open(self, totals: npt.NDArray[np.int64]) -> None:
        """Continue the feed where it ends according to the lane's globals."""
        count = int(totals[FEED])
        self._pending = []
        value = self._store.read([keys.feed(self._prefix, count // FEED_CHUNK)])[0]
        self._chunk = decode_feed(value)[: count % FEED_CHUNK]

    def fold(self, changes: list[ProductChange], items: ItemTable, scopes: ScopeFold, rows: Rows) -> None:
        """Apply catalogue changes in order."""
        hashes = hash_ids([change.item for change in changes])
        items.load(hashes)
        for change, item in zip(changes, hashes.tolist(), strict=True):
            rows[keys.product(self._prefix, item)] = encode_product(change.item, change.ts_ms, change.product)
            slot = items.slot_of(item)
            items.rows["flags"][slot] |= FLAG_LISTED
            if change.product is not None:
                category = hash_id(change.product.get("category") or "")
                brand = hash_id(change.product.get("brand") or "")
                scopes.move(item, int(items.rows["category"][slot]), category, int(items.rows["brand"][slot]), brand)
                items.rows["flags"][slot] |= FLAG_PRODUCT
                items.rows["category"][slot], items.rows["brand"][slot] = category, brand
                items.rows["price"][slot] = change.product.get("price") or 0.0
            self._pending.append(change.item)

    def list_items(self, item_ids: list[str]) -> None:
        """Append items (text ids) to the feed of all items, in this order."""
        self._pending.extend(item_ids)

    def write_feed(self, totals: npt.NDArray[np.int64], rows: Rows) -> None:
        """Append the pending ids to the feed's rows and to its count."""
        while self._pending:
            room = FEED_CHUNK - len(self._chunk)
            self._chunk += self._pending[:room]
            self._pending = self._pending[room:]
            rows[keys.feed(self._prefix, int(totals[FEED]) // FEED_CHUNK)] = encode_feed(self._chunk)
            totals[FEED] = int(totals[FEED]) // FEED_CHUNK * FEED_CHUNK + len(self._chunk)
            if len(self._chunk) == FEED_CHUNK:
                self._chunk = []
