"""What a product is after each change of it: whole products and updates, merged in any order of their two topics.

A row is JSON with sorted names: the product's fields, `item`, and

    ts_ms      time of the whole product; 0 where only updates came, or the key of `products` was deleted
    gone       true: the item was taken away
    replaced   true: the whole product is from `product-updates`
    changed    {time: [fields]}: what later updates set or cleared, each attribute as `attr.NAME`

On each topic the order in the log decides. Between the two the time does, field by field, and of equal times the
update wins: which topic is read ahead of the other makes no difference.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from schemas.events import ATTRIBUTE, Change, ProductChange

FACTS = ("category", "brand", "price")
"""Fields that item rows hold too."""
OWN = ("item", "ts_ms", "gone", "replaced", "changed")

Fields = dict[str, Any]


class ProductRow(NamedTuple):
    """A product row, decoded; `changed`: time of the last update of each field that one set or cleared."""

    fields: Fields
    ts_ms: int = 0
    gone: bool = False
    replaced: bool = False
    changed: dict[str, int] = {}  # noqa: RUF012 - never written to

    @property
    def has_facts(self) -> bool:
        """Return whether category, brand and price are the product's, which then events no longer set."""
        whole = self.ts_ms > 0 or self.replaced
        return not self.gone and (whole or any(name in self.fields for name in FACTS))


UNKNOWN = ProductRow({})


def encode_product(item: str, row: ProductRow) -> bytes:
    """Return the bytes of a product row."""
    by_time: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(row.changed):
        by_time[str(row.changed[name])].append(name)
    own = {"gone": row.gone, "replaced": row.replaced, "changed": by_time}
    body = {**row.fields, "item": item, "ts_ms": row.ts_ms, **{name: value for name, value in own.items() if value}}
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def decode_product(value: bytes | None) -> ProductRow:
    """Return a product row of its bytes, that of an unknown product for None."""
    if value is None:
        return UNKNOWN
    row = orjson.loads(value)
    changed = {name: int(ts_ms) for ts_ms, names in row.get("changed", {}).items() for name in names}
    fields = {name: found for name, found in row.items() if name not in OWN}
    return ProductRow(fields, row["ts_ms"], row.get("gone", False), row.get("replaced", False), changed)


def merge_change(row: ProductRow, change: ProductChange) -> ProductRow:
    """Return the product after a change.

    An item that is gone comes back with a whole product, or with an update that gives it a title.
    """
    if change.change is Change.WHOLE:
        return _whole(row, change)
    if not row.replaced and row.ts_ms > change.ts_ms:  # a whole product that is newer came first
        return row
    if change.change is Change.REPLACE:
        return ProductRow(change.product or {}, change.ts_ms, gone=change.product is None, replaced=True)
    named = change.product or {}
    fields, changed = _set(row.fields, named.items()), dict(row.changed)
    if "attributes" in named:
        changed = {name: ts_ms for name, ts_ms in changed.items() if not name.startswith(ATTRIBUTE)}
    changed |= dict.fromkeys(named, change.ts_ms)
    return row._replace(fields=fields, gone=row.gone and named.get("title") is None, changed=changed)


def reduced(change: ProductChange) -> ProductChange:
    """Return a change with no more than title and FACTS: what lanes keep of a product that they do not own."""
    kept = ("title", *FACTS)
    named = None if change.product is None else {name: change.product[name] for name in kept if name in change.product}
    return ProductChange(change.message, change.item, change.ts_ms, named, change.change)


def _whole(row: ProductRow, change: ProductChange) -> ProductRow:
    if change.product is None:
        return ProductRow({}, change.ts_ms, gone=True)
    if row.replaced and row.ts_ms >= change.ts_ms:  # one that is newer came first
        return row
    later = {name: ts_ms for name, ts_ms in row.changed.items() if ts_ms >= change.ts_ms}
    every_first = sorted(later, key=lambda name: name != "attributes")
    fields = _set(change.product, ((name, _get(row.fields, name)) for name in every_first))
    return ProductRow(fields, change.ts_ms, changed=later)


def _get(fields: Fields, name: str) -> Any:
    if name == "attributes":
        return None
    if name.startswith(ATTRIBUTE):
        return (fields.get("attributes") or {}).get(name.removeprefix(ATTRIBUTE))
    return fields.get(name)


def _set(fields: Fields, named: Iterable[tuple[str, Any]]) -> Fields:
    """Return the fields with those set that are named, each attribute by itself, and those cleared that are None."""
    found, attributes = dict(fields), dict(fields.get("attributes") or {})
    each = False
    for name, value in named:
        if name == "attributes":
            attributes, each = {}, True
        elif name.startswith(ATTRIBUTE):
            attributes[name.removeprefix(ATTRIBUTE)], each = value, True
        elif value is None:
            found.pop(name, None)
        else:
            found[name] = value
    if each:
        kept = {name: text for name, text in attributes.items() if text is not None}
        found.pop("attributes", None)
        if kept:
            found["attributes"] = kept
    return found
