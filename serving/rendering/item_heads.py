"""The first bytes of each item in JSON and in Protocol Buffers, as byte strings by number."""

import numpy as np
import numpy.typing as npt
import orjson

from schemas.compiled.distinct import distinct
from serving.catalogue.catalogue import Catalogue
from serving.proto import headrace_pb2
from serving.rendering.byte_strings import ByteStringPool
from serving.rendering.field_cache import FieldCache

MAX_KEPT = 1_000_000
"""Items whose heads are kept, some 100 bytes each."""
NOT_YET = -1
SCORE_TAG = bytes([headrace_pb2.Recommendation.DESCRIPTOR.fields_by_name["score"].number << 3 | 1])
Rows = npt.NDArray[np.int64]


class ItemHeads:
    """Heads that are made when an item is first shown, and kept until names in the catalogue change."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.fields = catalogue, FieldCache(catalogue)
        self._clear()

    def _clear(self) -> None:
        self._version = self.catalogue.names_version
        self._rows = list[int]()
        self._json, self._message = ByteStringPool(), ByteStringPool()
        self._number_of = np.full(len(self.catalogue), NOT_YET, np.int32)

    def numbers(self, rows: Rows) -> Rows:
        """Return the number of each row's head: `{"item":...,"title":...,"score":`, and the like of a message.

        They count in `json` and `message` as these are now; a later call may begin anew. `rows`: of any shape.
        """
        if self.catalogue.names_version != self._version or len(self._rows) > MAX_KEPT:
            self._clear()
        elif len(self.catalogue) > len(self._number_of):
            more = np.full(len(self.catalogue), NOT_YET, np.int32)
            self._number_of = np.concatenate((self._number_of, more))
        numbers: Rows = self._number_of[rows].astype(np.int64)
        new = numbers == NOT_YET
        if new.any():
            found = distinct(rows[new])
            self._number_of[found] = np.arange(len(self._rows), len(self._rows) + len(found))
            self._rows += found.tolist()
            numbers = self._number_of[rows].astype(np.int64)
        return numbers

    @property
    def json(self) -> ByteStringPool:
        """Heads as JSON, by number; made here, since a server may never need those of the other format."""
        names = self._names(len(self._json))
        dumps = orjson.dumps
        self._json.extend([b'{"item":%b,"title":%b,"score":' % (dumps(item), dumps(title)) for item, title in names])
        return self._json

    @property
    def message(self) -> ByteStringPool:
        """Heads as fields of a `Recommendation` message and the tag of the score, by number."""
        names = self._names(len(self._message))
        heads = [headrace_pb2.Recommendation(item=item, title=title) for item, title in names]
        self._message.extend([head.SerializeToString() + SCORE_TAG for head in heads])
        return self._message

    def _names(self, first: int) -> list[tuple[str, str]]:
        """Return id and title of the items from a number on."""
        ids, titles = self.catalogue.ids, self.catalogue.titles
        return [(ids[row], titles[row]) for row in self._rows[first:]]
