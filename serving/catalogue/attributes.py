"""Attributes of items: any number of names, and columns of those that conditions use.

A shop may have thousands of names, of which its rules and filters use a few. A column is made when a condition over
all items first uses a name, and kept up to date from then on; the least recently used ones are dropped.
"""

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from serving.request.columns import Text, TextColumn

KEPT_BYTES = 256 << 20
"""Of columns; one is kept whatever its size."""
NOTHING: Mapping[str, str] = {}


class Attributes:
    """The attributes of each item by catalogue row."""

    def __init__(self) -> None:
        self._of: list[Mapping[str, str]] = []
        self._n_items: dict[str, int] = {}
        """By name: how many items carry it. A name that no item carries is not known."""
        self._columns: OrderedDict[str, TextColumn] = OrderedDict()

    def get(self, row: int) -> Mapping[str, str]:
        """Return an item's attributes; none while another thread is still adding it."""
        return self._of[row] if row < len(self._of) else NOTHING

    def names(self) -> set[str]:
        """Return the names that some item carries."""
        return set(self._n_items)

    def set(self, row: int, attributes: Mapping[str, str]) -> None:
        """Replace what is known of an item; `row` is one that is there, or the next one."""
        if row == len(self._of):
            self._of.append(NOTHING)
            for column in self._columns.values():
                column.make_room(row + 1)
        before, self._of[row] = self._of[row], attributes or NOTHING
        for name in attributes.keys() - before.keys():
            self._n_items[name] = self._n_items.get(name, 0) + 1
        for name in before.keys() - attributes.keys():
            self._n_items[name] -= 1
        for name in before.keys() | attributes.keys():
            if name in self._columns:
                self._columns[name].set(row, attributes.get(name, ""))
            if not self._n_items[name]:
                del self._n_items[name]
                self._columns.pop(name, None)

    def text(self, name: str, rows: npt.NDArray[np.int64] | None) -> Text:
        """Return what all items, or those of some rows, have under a name."""
        if rows is not None:
            return coded([self._of[row].get(name, "") for row in rows.tolist()])
        if name not in self._n_items:
            return Text(np.zeros(len(self._of), np.int32), [""])
        return self._column(name).view(len(self._of))

    def copy(self) -> "Attributes":
        """Return a copy of these attributes that later changes of the catalogue do not touch."""
        same = Attributes()
        same._of, same._n_items = self._of.copy(), self._n_items.copy()
        return same

    def _column(self, name: str) -> TextColumn:
        column = self._columns.get(name)
        if column is None:
            column = TextColumn.of([attributes.get(name, "") for attributes in self._of])
            kept = sum(other.n_bytes for other in self._columns.values())
            while self._columns and kept + column.n_bytes > KEPT_BYTES:
                kept -= self._columns.popitem(last=False)[1].n_bytes
            self._columns[name] = column
        self._columns.move_to_end(name)
        return column


def coded(words: list[str]) -> Text:
    """Return texts as codes into a list of those there are.

    >>> coded(["b", "", "b"])
    Text(codes=array([0, 1, 0], dtype=int32), words=['b', ''])
    """
    code_of: dict[str, int] = {}
    codes = np.array([code_of.setdefault(word, len(code_of)) for word in words], np.int32)
    return Text(codes, list(code_of) or [""])
