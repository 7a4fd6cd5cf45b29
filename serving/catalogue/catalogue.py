"""The server's copy of the catalogue: ids, names and attributes of items, followed through the lanes' item feeds."""

from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from schemas.compiled.distinct import distinct
from schemas.ids import hash_ids
from serving.catalogue.attributes import NOTHING, Attributes
from serving.request.columns import Mask, Text, TextColumn, grown
from state.rows import keys
from state.rows.lane_rows import FEED, FEED_CHUNK, decode_feed, decode_globals
from state.rows.slot_map import ABSENT, SlotMap
from state.store.contract import RowReader

FIRST_CAPACITY = 1024
REMEMBERED, MOST_REMEMBERED = 64, 10_000
"""Versions whose changed rows are remembered, and rows of one; after more, what follows the catalogue begins anew."""
UNCOUNTED = 2**40
"""Stock of an item whose stock is not counted."""

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


class Item(NamedTuple):
    """One item; an item known from events only has its id as its title."""

    item: str
    title: str
    category: str
    brand: str
    price: float | None
    stock: int | None
    gone: bool
    seller: str
    margin: float | None
    image_url: str
    attributes: dict[str, str]


class _FirstSlots(SlotMap):
    """The first slots of a map that goes on to grow, to be found only."""

    def __init__(self, slots: SlotMap, n: int) -> None:
        self.__dict__.update(slots.__dict__)
        self._n = n

    def find(self, ids: Hashes) -> Rows:
        found = super().find(ids)
        return np.where(found < self._n, found, ABSENT)


class Catalogue:
    """All items as columns; row i of each column is the same item, in the order they came.

    `refresh` reads only what the feeds gained since the last time; `version` counts the times something changed,
    `names_version` how often an item that was there got another title.
    """

    def __init__(self, lane_prefixes: Sequence[bytes], show_unknown: bool = False) -> None:
        """`show_unknown`: items without a title may be shown beside those that have one."""
        self._prefixes, self._show_unknown = lane_prefixes, show_unknown
        self._read = dict.fromkeys(lane_prefixes, 0)
        self.version = self.names_version = 0
        self._changes: deque[tuple[int, Rows]] = deque(maxlen=REMEMBERED)
        """Rows that changed, by the version they brought; one version follows the other."""
        self.behind = False
        """Whether the last `refresh` left changes for the next one."""
        self._slots = SlotMap(FIRST_CAPACITY)
        self.ids: list[str] = []
        self.titles: list[str] = []
        self._image_urls: list[str] = []
        self.category, self.brand, self.seller = (TextColumn(FIRST_CAPACITY) for _ in range(3))
        self._attributes = Attributes()
        self._price = np.zeros(FIRST_CAPACITY)
        self._margin = np.zeros(FIRST_CAPACITY)
        self._stock = np.zeros(FIRST_CAPACITY, np.int64)
        self._gone, self._titled = np.zeros(FIRST_CAPACITY, np.bool_), np.zeros(FIRST_CAPACITY, np.bool_)
        self._n_titled = 0

    def __len__(self) -> int:
        return len(self.ids)

    def copy(self) -> "Catalogue":
        """Return the catalogue as it is now, for another thread to read; what only grows is shared."""
        n, same = len(self), copy(self)
        same.ids, same._changes = self.ids[:n], self._changes.copy()
        same._slots, same._attributes = _FirstSlots(self._slots, n), self._attributes.copy()
        same.category, same.brand, same.seller = (column.copy(n) for column in (self.category, self.brand, self.seller))
        same._price, same._margin = self._price[:n].copy(), self._margin[:n].copy()
        same._stock, same._gone = self._stock[:n].copy(), self._gone[:n].copy()
        same._titled = self._titled[:n].copy()
        return same

    def rows_of(self, item_hashes: Hashes) -> Rows:
        """Return the row of each item, -1 for those not known."""
        return self._slots.find(item_hashes)

    def hashes(self) -> Hashes:
        """Return the id hashes of all items, by row."""
        return self._slots.id_of[: len(self.ids)]

    def row_of(self, item_hash: int) -> int:
        """Return the row of an item, -1 when it is not known."""
        return int(self._slots.find(np.array([item_hash], np.uint64))[0])

    def get(self, item_hash: int) -> Item | None:
        """Return an item by its id hash, None when it is not known."""
        row = self.row_of(item_hash)
        return None if row < 0 else self.item(row)

    def item(self, row: int) -> Item:
        """Return the item of a row."""
        price, margin, stock = self._price[row], self._margin[row], int(self._stock[row])
        return Item(
            self.ids[row], self.titles[row], self.category.get(row), self.brand.get(row),
            None if np.isnan(price) else float(price), None if stock == UNCOUNTED else stock, bool(self._gone[row]),
            self.seller.get(row), None if np.isnan(margin) else float(margin),
            self._image_urls[row], dict(self._attributes.get(row)),
        )  # fmt: skip

    def number(self, name: str, rows: Rows | None = None) -> npt.NDArray[np.float64]:
        """Return `price`, `stock` or `margin` of all rows, or of some; NaN where it is not known."""
        at = slice(0, len(self)) if rows is None else rows
        if name == "stock":
            stock = self._stock[at]
            return np.where(stock == UNCOUNTED, np.nan, stock)
        return {"price": self._price, "margin": self._margin}[name][at]

    def text(self, name: str, rows: Rows | None = None) -> Text:
        """Return `category`, `brand`, `seller` or `attr.NAME` of all rows, or of some."""
        if name.startswith("attr."):
            return self._attributes.text(name.removeprefix("attr."), rows)
        column = {"category": self.category, "brand": self.brand, "seller": self.seller}[name]
        return column.view(len(self)) if rows is None else column.some(rows)

    def attribute_names(self) -> set[str]:
        """Return the names of attributes that some item has."""
        return self._attributes.names()

    @property
    def titled_only(self) -> bool:
        """Return whether items without a title are kept out of lists: there is a catalogue, and they are not in it."""
        return self._n_titled > 0 and not self._show_unknown

    def has_title(self, row: int) -> bool:
        """Return whether the item of a row is a product with a title."""
        return bool(self._titled[row])

    def shown(self, in_stock: bool, rows: Rows | None = None) -> Mask:
        """Return which items may be shown at all: in the catalogue, where there is one, not gone and, with `in_stock`,
        not known to be out of stock.
        """
        at = slice(0, len(self)) if rows is None else rows
        there = ~self._gone[at]
        if self.titled_only:
            there &= self._titled[at]
        return there & (self._stock[at] > 0) if in_stock else there

    def changed_since(self, version: int) -> Rows | None:
        """Return the rows that changed after a version, ascending; None where nobody remembers."""
        if version == self.version:
            return np.zeros(0, np.int64)
        changes = tuple(self._changes)  # at once: the thread that keeps a copy asks too
        if not changes or changes[0][0] > version + 1:
            return None
        return distinct(np.concatenate([rows for at, rows in changes if at > version]))

    def refresh(self, store: RowReader, totals: Sequence[bytes | None], most: int | None = None) -> Hashes:
        """Add new items and apply changed products, given the globals of every lane; return their id hashes.

        At most `most` of each lane; `behind` says whether there are more.
        """
        taken, reached, behind = list[str](), dict[bytes, int](), False
        for prefix, value in zip(self._prefixes, totals, strict=True):
            count, read = int(decode_globals(value)[FEED]), self._read[prefix]
            until = count if most is None else min(count, read + most)
            if until > read:
                chunks = range(read // FEED_CHUNK, (until - 1) // FEED_CHUNK + 1)
                found = store.read([keys.feed(prefix, chunk) for chunk in chunks])
                ids = [item for value in found for item in decode_feed(value)]
                taken += ids[read - chunks[0] * FEED_CHUNK :][: until - read]
                reached[prefix] = until
            behind |= until < count
        ids = list(dict.fromkeys(taken))
        hashes = hash_ids(ids)
        # A product rests in the lane that owns its hash.
        wanted = [keys.product(self._prefixes[h % len(self._prefixes)], h) for h in hashes.tolist()]
        products = [orjson.loads(value) if value else {} for value in store.read(wanted)] if wanted else []
        self.take(ids, hashes, products)
        self._read.update(reached)  # not before: where the store goes away in between they are read once more
        self.behind = behind
        return hashes

    def take(self, ids: list[str], hashes: Hashes, products: list[dict[str, Any]]) -> None:
        """Add distinct items with their product rows ({}: known from events only)."""
        if not ids:
            return
        self._make_room(len(self) + len(ids))
        rows, titled_only = self._slots.assign(hashes), self.titled_only
        for item, row, product in zip(ids, rows.tolist(), products, strict=True):
            if row == len(self.ids):
                self.ids.append(item)
                self.titles.append("")
                self._image_urls.append("")
            title = product.get("title") or item
            if self.titles[row] != title:
                self.names_version += self.titles[row] != ""
                self.titles[row] = title
            self._image_urls[row] = product.get("image_url") or ""
            self._attributes.set(row, product.get("attributes") or NOTHING)
            self.category.set(row, product.get("category") or "")
            self.brand.set(row, product.get("brand") or "")
            self.seller.set(row, product.get("seller") or "")
            price, margin, stock = product.get("price"), product.get("margin"), product.get("stock")
            self._price[row] = np.nan if price is None else price
            self._margin[row] = np.nan if margin is None else margin
            self._stock[row] = UNCOUNTED if stock is None else stock
            self._gone[row] = product.get("gone", False)
            titled = bool(product.get("title"))
            self._n_titled += titled - int(self._titled[row])
            self._titled[row] = titled
        self.version += 1
        if len(ids) > MOST_REMEMBERED or self.titled_only != titled_only:  # then other rows are shown too, or no longer
            self._changes.clear()
        else:
            self._changes.append((self.version, rows))

    def _make_room(self, n: int) -> None:
        capacity = len(self._price)
        if n <= capacity:
            return
        while capacity < n:
            capacity *= 2
        hashes, self._slots = self.hashes(), SlotMap(capacity)
        self._slots.assign(hashes)  # in order, so every item keeps its row
        for column in (self.category, self.brand, self.seller):
            column.grow(capacity)
        self._price, self._margin, self._stock, self._gone, self._titled = (
            grown(column, capacity) for column in (self._price, self._margin, self._stock, self._gone, self._titled)
        )
