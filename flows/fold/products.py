"""Catalogue changes, and the feed from which servers read the ids of all items."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.fold.item_table import ItemTable
from flows.fold.product_rows import ProductRow, decode_product, encode_product, merge_change, reduced
from flows.fold.top_lists import ScopeFold
from schemas.events import ProductChange
from schemas.ids import hash_id, hash_ids
from state.rows import keys
from state.rows.item_rows import FLAG_LISTED, FLAG_PRODUCT
from state.rows.lane_rows import FEED, FEED_CHUNK, decode_feed, encode_feed
from state.store.contract import Store

Rows = dict[bytes, bytes | None]


class ItemChange(NamedTuple):
    """What a catalogue change does to its item's row."""

    message: int
    item: int
    owned: bool
    """Whether the lane owns the item, and so lists it."""
    facts: tuple[int, int, float] | None
    """Category, brand and price of the product; None: it has none, and those of the row stay."""

    @property
    def flags(self) -> int:
        """Return the flags that the row has afterwards."""
        return FLAG_LISTED * self.owned | FLAG_PRODUCT * (self.facts is not None)

    def changes_events(self, flags: int, category: int, brand: int) -> bool:
        """Return whether events before the change see another item than those after it, given the row's values."""
        return bool(self.flags & ~flags) or (self.facts is not None and self.facts[:2] != (category, brand))


class ProductFold:
    """Writes product rows and appends to the item feed.

    A product rests in the lane that owns the hash of its item. The others keep what item rows hold of it: the facts
    that their visitors' profiles are made of.

    The feed is a list of item ids in chunks of FEED_CHUNK: an id is appended when
    the item is first seen and each time its product changes. A server that knows
    how far it has read needs only what came after.
    """

    def __init__(self, store: Store, lane_prefix: bytes, lane: int, n_lanes: int) -> None:
        self._store, self._prefix, self._lane, self._n_lanes = store, lane_prefix, lane, n_lanes
        self._chunk: list[str] = []
        self._pending: list[tuple[int, str]] = []
        self._rows: dict[int, ProductRow] = {}
        self._rows_before: dict[int, ProductRow] = {}
        """Rows of the round before, whose commit may be under way."""

    def open(self, totals: npt.NDArray[np.int64]) -> None:
        """Continue the feed where it ends according to the lane's globals."""
        count = int(totals[FEED])
        self._pending = []
        self._rows, self._rows_before = {}, {}
        value = self._store.read([keys.feed(self._prefix, count // FEED_CHUNK)])[0]
        self._chunk = decode_feed(value)[: count % FEED_CHUNK]

    def merge(self, changes: Sequence[ProductChange], rows: Rows) -> list[ItemChange]:
        """Merge changes into their products, in order, and list the items owned; return what item rows get of them."""
        self._rows_before, self._rows = self._rows, {}
        if not changes:
            return []
        hashes = hash_ids([change.item for change in changes]).tolist()
        self._read(set(hashes))
        found = []
        for whole, item in zip(changes, hashes, strict=True):
            owned = item % self._n_lanes == self._lane
            change = whole if owned else reduced(whole)
            self._rows[item] = row = merge_change(self._rows[item], change)
            rows[keys.product(self._prefix, item)] = encode_product(change.item, row)
            if owned:
                self._pending.append((change.message, change.item))
            found.append(ItemChange(change.message, item, owned, _facts(row) if row.has_facts else None))
        return found

    def _read(self, items: set[int]) -> None:
        """Have the rows of items at hand."""
        missing = []
        for item in items:
            if item in self._rows_before:
                self._rows[item] = self._rows_before[item]
            else:
                missing.append(item)
        if missing:
            values = self._store.read([keys.product(self._prefix, item) for item in missing])
            self._rows |= {item: decode_product(value) for item, value in zip(missing, values, strict=True)}

    def list_items(self, items: list[tuple[int, str]]) -> None:
        """Append items (message that named it first, text id) to the feed of all items."""
        self._pending.extend(items)

    def write_feed(self, totals: npt.NDArray[np.int64], rows: Rows) -> None:
        """Append the pending ids to the feed's rows and to its count, in the order of their messages."""
        pending = [item for _, item in sorted(self._pending, key=lambda one: one[0])]
        self._pending = []
        while pending:
            room = FEED_CHUNK - len(self._chunk)
            self._chunk += pending[:room]
            pending = pending[room:]
            rows[keys.feed(self._prefix, int(totals[FEED]) // FEED_CHUNK)] = encode_feed(self._chunk)
            totals[FEED] = int(totals[FEED]) // FEED_CHUNK * FEED_CHUNK + len(self._chunk)
            if len(self._chunk) == FEED_CHUNK:
                self._chunk = []


def _facts(row: ProductRow) -> tuple[int, int, float]:
    category, brand = (hash_id(row.fields.get(name) or "") for name in ("category", "brand"))
    return category, brand, row.fields.get("price") or 0.0


def change_item(change: ItemChange, items: ItemTable, scopes: ScopeFold) -> None:
    """Make a cached item's row that of its changed product, and take it out of the lists of what it no longer is."""
    rows, slot = items.rows, items.slot_of(change.item)
    rows["flags"][slot] |= change.flags
    if change.facts is not None:
        category, brand, price = change.facts
        scopes.move(change.item, int(rows["category"][slot]), category, int(rows["brand"][slot]), brand)
        rows["category"][slot], rows["brand"][slot], rows["price"][slot] = category, brand, price
