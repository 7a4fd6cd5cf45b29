"""The product fields of items with their bytes, made once and kept until the catalogue changes."""

from functools import cached_property

import orjson

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.product_values import Value, product_values
from serving.proto import headrace_pb2
from serving.request.product_fields import Fields

MAX_KEPT = 200_000
"""Items whose fields are kept, some 300 bytes each."""


class RenderedFields:
    """What one item has under the names that a request gives."""

    def __init__(self, values: dict[str, Value]) -> None:
        self.values = values

    @cached_property
    def json(self) -> bytes:
        """The field `fields` of an item in JSON, and the comma before it."""
        return b',"fields":%b' % orjson.dumps(self.values)

    @cached_property
    def message(self) -> bytes:
        """The same field of a `Recommendation` message."""
        message = headrace_pb2.Recommendation()
        message.fields.update(self.values)
        return bytes(message.SerializeToString())


class FieldCache:
    """The fields of items by names and catalogue row."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, catalogue.version
        self._kept: dict[tuple[str, ...], dict[int, RenderedFields]] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def get(self, names: Fields, rows: list[int]) -> list[RenderedFields]:
        """Return the fields with these names of the items in these rows."""
        if self._catalogue.version != self._version or self._n > MAX_KEPT:
            self._version, self._n = self._catalogue.version, 0
            self._kept.clear()
        kept = self._kept.setdefault(tuple(names), {})
        for row in rows:
            if row not in kept:
                kept[row] = RenderedFields(product_values(self._catalogue, row, names))
                self._n += 1
        return [kept[row] for row in rows]
