"""The product fields of items, as answers carry them."""

from collections.abc import Callable, Mapping

from serving.catalogue.catalogue import Catalogue, Item
from serving.request.product_fields import ATTRIBUTE, Fields

Value = str | float | None
READERS: Mapping[str, Callable[[Item], Value]] = {
    "price": lambda item: item.price,
    "image": lambda item: item.image_url or None,
    "url": lambda item: item.attributes.get("url"),
    "brand": lambda item: item.brand or None,
    "category": lambda item: item.category or None,
    "seller": lambda item: item.seller or None,
    "stock": lambda item: item.stock,
}
"""Of each field but the title and attributes: how it is read."""


def product_values(catalogue: Catalogue, row: int, names: Fields) -> dict[str, Value]:
    """Return what the catalogue has of an item under these names, None where it has nothing."""
    item, found = catalogue.item(row), dict[str, Value]()
    for name in names:
        if name == "title":
            found[name] = item.title if catalogue.has_title(row) else None
        elif name.startswith(ATTRIBUTE):
            found[name] = item.attributes.get(name.removeprefix(ATTRIBUTE))
        else:
            found[name] = READERS[name](item)
    return found
