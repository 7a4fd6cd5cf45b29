"""What a server knows of the shop's items: ids, names and facts, followed through the lanes' item feeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from schemas.ids import hash_id
from serving.requests import Filters
from state import keys
from state.lane_rows import FEED, FEED_CHUNK, decode_feed, decode_globals
from state.store import Store

MAX_SELECTIONS = 64


@dataclass(frozen=True)
class Item:
    """One item; an item known from events only has its id as its title."""

    item: str
    title: str
    category: str = ""
    brand: str = ""
    price: float | None = None
    stock: int | None = None
    gone: bool = False


class Catalogue:
    """All items by id hash. `refresh` reads only what the feeds gained since the last time."""

    def __init__(self, lane_prefixes: Sequence[bytes]) -> None:
        self._prefixes = lane_prefixes
        self._read = dict.fromkeys(lane_prefixes, 0)
        self._items: dict[int, Item] = {}
        self._selected: dict[Filters, frozenset[int]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, item_hash: int) -> Item | None:
        return self._items.get(item_hash)

    def select(self, filters: Filters) -> frozenset[int]:
        """Return the hashes of the items that pass; remembered until the catalogue changes."""
        if filters not in self._selected:
            if len(self._selected) >= MAX_SELECTIONS:
                self._selected.clear()
            self._selected[filters] = frozenset(h for h, item in self._items.items() if _passes(item, filters))
        return self._selected[filters]

    def hashes(self) -> npt.NDArray[np.uint64]:
        """Return the id hashes of all items."""
        return np.fromiter(self._items, np.uint64, len(self._items))

    def refresh(self, store: Store) -> npt.NDArray[np.uint64]:
        """Take over new items and changed products of every lane; return their id hashes."""
        taken: list[str] = []
        totals = store.read([keys.lane_globals(prefix) for prefix in self._prefixes])
        for prefix, value in zip(self._prefixes, totals, strict=True):
            count, read = int(decode_globals(value)[FEED]), self._read[prefix]
            if count > read:
                chunks = range(read // FEED_CHUNK, (count - 1) // FEED_CHUNK + 1)
                found = store.read([keys.feed(prefix, chunk) for chunk in chunks])
                ids = [item for value in found for item in decode_feed(value)]
                taken += ids[read - chunks[0] * FEED_CHUNK :]
                self._take(store, ids[read - chunks[0] * FEED_CHUNK :])
                self._read[prefix] = count
        return np.array([hash_id(item) for item in taken], np.uint64)

    def _take(self, store: Store, ids: list[str]) -> None:
        ids = list(dict.fromkeys(ids))
        self._selected.clear()
        wanted = []
        for item in ids:  # a product rests in the lane that owns its hash
            prefix = self._prefixes[hash_id(item) % len(self._prefixes)]
            wanted.append(keys.product(prefix, hash_id(item)))
        for item, value in zip(ids, store.read(wanted), strict=True):
            product = orjson.loads(value) if value else {}
            self._items[hash_id(item)] = Item(
                item,
                product.get("title") or item,
                product.get("category") or "",
                product.get("brand") or "",
                product.get("price"),
                product.get("stock"),
                product.get("gone", False),
            )


def _passes(item: Item, filters: Filters) -> bool:
    if filters.category is not None and not (item.category + "/").startswith(filters.category.rstrip("/") + "/"):
        return False
    if filters.brands and item.brand not in filters.brands:
        return False
    if filters.min_price is None and filters.max_price is None:
        return True
    if item.price is None:
        return False
    low, high = filters.min_price or 0.0, filters.max_price
    return item.price >= low and (high is None or item.price <= high)
