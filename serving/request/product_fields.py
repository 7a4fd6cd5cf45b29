"""The product fields that an answer can carry beside id and title, so that a page needs no second call to show them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from schemas.similar_names import allowed

ATTRIBUTE = "attr."
PRODUCT_FIELDS = ("title", "price", "image", "url", "brand", "category", "seller", "stock")
"""`image` is the product's `image_url`, `url` its attribute `url`; `attr.NAME` stands for any attribute.

`margin` is none of them: pages of a shop are for its visitors.
"""
MAX_FIELDS = 50


def _known(name: str) -> str:
    """Return a name that is a product field; raise ValueError for another one."""
    if name in PRODUCT_FIELDS or (name.startswith(ATTRIBUTE) and name != ATTRIBUTE):
        return name
    there = (*PRODUCT_FIELDS, f"{ATTRIBUTE}NAME")
    raise ValueError(f"there is no product field {name!r:.60}{allowed(name, there)}")


ProductField = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_known)]
Fields = Sequence[str]
"""Names of product fields, in the order in which an item has them."""


def names_in(query: Sequence[str]) -> list[str]:
    """Return the names in parameters of a query, which may hold several, with commas between them.

    >>> names_in(["title,price", "attr.size"])
    ['title', 'price', 'attr.size']
    """
    return [name for text in query for name in text.split(",")]
