"""The copy on disk from which a server answers without Redis: items, popular lists, rules.

Lists and rules are replaced as a whole each time. The catalogue is a file of lines to which changes are appended; an
item's last line counts. Once the appended part is as long as the rest, the file is rewritten. The thread writes in
small parts with pauses, so that it does not delay answers.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from schemas.ids import hash_ids
from serving.catalogue.catalogue import Catalogue
from serving.rules.book_errors import BadBook
from serving.rules.book_store import compiled
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.top_lists import TopList, shares_of

CATALOGUE, LISTS = "catalogue.jsonl", "lists.json"
AT_ONCE, PAUSE_S = 200, 0.0005
"""Items written between two pauses."""


class OfflineSnapshot:
    """The copy of one server, or of all servers that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalogue: Catalogue | None = None
        """Of which the file is a copy, as it was at `_version`."""
        self._version, self._n_lines = 0, 0

    def save(self, shop: ServingSnapshot) -> None:
        """Write the shop's current state; may run beside the thread that uses the shop. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._save_catalogue(shop)
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

    def load_into(self, shop: ServingSnapshot) -> bool:
        """Fill an empty shop from the copy; return whether there was one for its generation."""
        items, lists = self._read_catalogue(), self._read(LISTS)
        if items is None or lists is None or lists["generation"] != shop.generation:
            return False
        ids = [entry["item"] for entry in items]
        shop.catalogue.take(ids, hash_ids(ids), items)
        hashes = hash_ids(lists["popular"])
        weight, trend = np.array(lists["weight"], float), np.array(lists["trend"], float)
        shop.set_popular(TopList(hashes, weight, trend, np.zeros(len(hashes)), shares_of(weight)))
        return self.load_book_into(shop)

    def load_book_into(self, shop: ServingSnapshot) -> bool:
        """Use the book of the copy; return whether it has one that can be read, of whatever generation."""
        lists = self._read(LISTS)
        if lists is None:
            return False
        try:
            shop.rules = compiled(lists["rules"], lists["rules_version"])
        except BadBook:
            return False
        return True

    def _save_catalogue(self, shop: ServingSnapshot) -> None:
        catalogue = shop.catalogue
        version, n = catalogue.version, len(catalogue)
        changed = catalogue.changed_since(self._version) if catalogue is self._catalogue else None
        path = self._folder / CATALOGUE
        if changed is None or self._n_lines + len(changed) > 2 * n or not path.exists():
            new = path.with_suffix(".new")
            with new.open("wb") as file:
                for part in _lines(shop, range(n)):
                    file.write(part)
            new.replace(path)
            self._n_lines = n
        elif len(changed):
            with path.open("ab") as file:
                file.write(b"\n")  # behind a line that another server's end has cut short
                for part in _lines(shop, changed.tolist()):
                    file.write(part)
            self._n_lines += len(changed)
        self._catalogue, self._version = catalogue, version

    def _read_catalogue(self) -> list[dict[str, Any]] | None:
        """Return the last state of each item, None without a file."""
        try:
            lines = (self._folder / CATALOGUE).read_bytes().split(b"\n")
        except OSError:
            return None
        items: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                item = orjson.loads(line)
            except ValueError:
                continue  # empty, or cut short
            items[item["item"]] = item
        return list(items.values())

    def _replace(self, name: str, body: dict[str, Any]) -> None:
        new = self._folder / f"{name}.new"
        new.write_bytes(orjson.dumps(body))
        new.replace(self._folder / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(orjson.loads((self._folder / name).read_bytes()))
        except (OSError, ValueError):
            return None


def _lines(shop: ServingSnapshot, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield the lines of items, some at once."""
    for first in range(0, len(rows), AT_ONCE):
        yield b"".join(orjson.dumps(_plain(shop, row)) + b"\n" for row in rows[first : first + AT_ONCE])
        time.sleep(PAUSE_S)


def _plain(shop: ServingSnapshot, row: int) -> dict[str, Any]:
    """Return an item's fields as in its product row, without unknown ones."""
    item = shop.catalogue.item(row)
    fields = {**item._asdict(), "title": item.title if shop.catalogue.has_title(row) else ""}
    return {name: value for name, value in fields.items() if value or (value == 0 and value is not False)}
