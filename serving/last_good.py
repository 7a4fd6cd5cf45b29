"""What a server needs to answer without Redis, kept on disk: items, popular lists, rules.

Two files are replaced as a whole, so a reader meets the old one or the new one: the
catalogue when it has changed, the lists and rules at every turn.
"""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from schemas.ids import hash_id
from serving.rule_book import BadBook, to_book
from serving.rules import Compiled
from serving.shop import ScopeItems, Shop

CATALOGUE, LISTS = "catalogue.json", "lists.json"


class LastGood:
    """The copy of one server, or of all servers that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written_version = -1

    def save(self, shop: Shop) -> None:
        """Write what the shop knows now. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if shop.catalogue.version != self._written_version:
            version = shop.catalogue.version
            items = [_plain(shop, row) for row in range(len(shop.catalogue))]
            self._replace(CATALOGUE, {"generation": shop.generation, "items": items})
            self._written_version = version
        popular = shop.popular
        self._replace(LISTS, {
            "generation": shop.generation,
            "popular": [shop.text(int(item)) for item in popular.hashes.tolist()],
            "weight": popular.weight.tolist(), "trend": popular.trend.tolist(),
            "rules": shop.rules.book.model_dump(mode="json", exclude_defaults=True),
            "rules_version": shop.rules.version,
        })  # fmt: skip

    def generation(self) -> str | None:
        """Return the generation that was saved, None when there is no usable copy."""
        lists = self._read(LISTS)
        return None if lists is None else str(lists["generation"])

    def load_into(self, shop: Shop) -> bool:
        """Fill an empty shop from the copy; say whether there was one for its generation."""
        catalogue, lists = self._read(CATALOGUE), self._read(LISTS)
        if catalogue is None or lists is None or lists["generation"] != shop.generation:
            return False
        ids = [entry["item"] for entry in catalogue["items"]]
        shop.catalogue.take(ids, np.array([hash_id(item) for item in ids], np.uint64), catalogue["items"])
        hashes = np.array([hash_id(item) for item in lists["popular"]], np.uint64)
        shop.set_popular(ScopeItems(hashes, np.array(lists["weight"], float), np.array(lists["trend"], float)))
        try:
            shop.rules = Compiled(to_book(lists["rules"]), lists["rules_version"])
        except BadBook:
            return False
        return True

    def _replace(self, name: str, body: dict[str, Any]) -> None:
        new = self._folder / f"{name}.new"
        new.write_bytes(orjson.dumps(body))
        new.replace(self._folder / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(orjson.loads((self._folder / name).read_bytes()))
        except (OSError, ValueError):
            return None


def _plain(shop: Shop, row: int) -> dict[str, Any]:
    """Return an item as its product row says it, without what is not known."""
    item = shop.catalogue.item(row)
    said = {**item._asdict(), "title": "" if item.title == item.item else item.title}
    return {name: value for name, value in said.items() if value or (value == 0 and value is not False)}
