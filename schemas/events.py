"""Event types: what crosses the log, and the columns a fold reads them as."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

TOPICS = (
    "product-views", "user-events", "purchases", "ratings", "products", "impressions", "erasures", "product-updates"
)  # fmt: skip
"""In the order of their schema ids (`schemas.registry`): a new one goes to the end."""
DEAD_LETTERS = "dead-letters"
BOOKS = "books"
"""Books of rules that were put (`flows.books`); a flow does not fold them."""


class Kind(IntEnum):
    """What a visitor did. Kinds from `REMOVE_FROM_CART` on are negative: they subtract and mark."""

    VIEW = 1
    CLICK = 2
    ADD_TO_CART = 3
    WISHLIST = 4
    PURCHASE = 5
    RATING = 6
    SHARE = 7
    SEARCH = 8
    REMOVE_FROM_CART = 16
    RETURN = 17
    DISLIKE = 18


FIRST_NEGATIVE_KIND = int(Kind.REMOVE_FROM_CART)

COLUMN_DTYPE = np.dtype(
    [
        ("message", np.int32),  # index of the message in the RawBatch
        ("line", np.int32),  # order line within a purchase, else 0
        ("kind", np.uint8),
        ("event_id", np.uint64),  # hash of the message's topic and event id; the same for all lines of an order
        ("user", np.uint64),  # hash of the user, or of the session of an anonymous visitor (`schemas.ids.hash_visitor`)
        ("item", np.uint64),  # id hash; 0 where the event names no item (a search)
        ("ts_ms", np.int64),
        ("value", np.float32),  # rating in stars, quantity of a purchase line, else 1
        ("price", np.float32),  # unit price; NaN where absent
        ("category", np.uint64),  # id hash of the whole category path; 0 where absent
        ("brand", np.uint64),
        ("country", np.uint64),
        ("item_start", np.int64),  # the item id's UTF-8 bytes in RawBatch.payload
        ("item_length", np.int32),
    ]
)
"""One row per interaction: an order has one row per line, every other message one."""

Columns = npt.NDArray[np.void]
"""Structured array of COLUMN_DTYPE, ordered by (message, line)."""


PRODUCT_FIELDS = ("title", "category", "brand", "price", "stock", "image_url", "seller", "margin", "attributes")
ATTRIBUTE = "attr."
"""Before the name of a single attribute in a change that is merged."""


class Change(IntEnum):
    """What a catalogue change does to what is known of its item."""

    WHOLE = 0
    """The whole product, from `products`."""
    REPLACE = 1
    """The whole product, from `product-updates`."""
    MERGE = 2
    """Some fields, from `product-updates`."""


@dataclass(frozen=True)
class ProductChange:
    """A catalogue change.

    `product`: the fields of a whole product, None for an item that is gone. Of a change that is merged only the fields
    that change, None for one that is cleared: each attribute by itself as `attr.NAME`, behind `attributes`: None where
    all others are cleared.
    """

    message: int
    item: str
    ts_ms: int
    product: dict[str, Any] | None
    change: Change = Change.WHOLE


@dataclass(frozen=True)
class Erasure:
    """A request to forget a user."""

    message: int
    user: str
    ts_ms: int


@dataclass(frozen=True)
class BadMessage:
    """A message that cannot be folded: `reason` is a short stable code, `detail` a sentence."""

    message: int
    reason: str
    detail: str
    error: Exception | None = field(default=None, compare=False, repr=False)
    """The exception, where one gave the message away."""


@dataclass(frozen=True)
class Decoded:
    """A RawBatch as columns; impressions are counted only."""

    interactions: Columns
    products: list[ProductChange] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    bad: list[BadMessage] = field(default_factory=list)
    n_impressions: int = 0
    payload: npt.NDArray[np.uint8] | None = None
    """The batch's with texts of ids behind it that no message holds as they are; None: the batch's own."""
