"""The items of one list, and the plain way to their bytes: orjson for JSON, protobuf's own encoder for messages.

`serving.rendering.lists` writes the lists of a batch at once, in a tenth of the time. Both ways give the same bytes
(`tests/serving/test_batch_lists.py`, `tests/serving/test_answer_bytes.py`).
"""

import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from schemas.varint import varint
from serving.proto import headrace_pb2
from serving.rendering.field_cache import RenderedFields
from serving.rendering.item_heads import ItemHeads
from serving.request.answer import DetailedRecommendation, ItemList, Recommendation, Rules
from serving.request.product_fields import Fields
from serving.request.reasons import Reason

TAG = bytes([headrace_pb2.Answer.DESCRIPTOR.fields_by_name["items"].number << 3 | 2])  # 2: what follows has a length
double = struct.Struct("<d").pack


class RenderedReason:
    """The source and reason of an item, with their bytes: most lists share a few, so each is written once."""

    def __init__(self, source: str, reason: Reason) -> None:
        self.source, self.reason = source, reason

    @cached_property
    def json(self) -> bytes:
        """The fields `source` and `reason` of an item in JSON, and the comma before them."""
        return b',"source":%b,"reason":%b' % (orjson.dumps(self.source), orjson.dumps(self.reason))

    @cached_property
    def message(self) -> bytes:
        """The same fields of a `Recommendation` message."""
        why = headrace_pb2.Reason(code=self.reason.code, args=self.reason.args, text=self.reason.text)
        return bytes(headrace_pb2.Recommendation(source=self.source, reason=why).SerializeToString())


def end_json(rules: Rules, fields: RenderedFields | None = None) -> bytes:
    """Return how an item without contributions ends in JSON, and the comma behind it."""
    return b',"rules":%b,"contributions":[]%b},' % (orjson.dumps(rules), fields.json if fields else b"")


def end_message(
    rules: Rules, fields: RenderedFields | None = None, contributions: Sequence[dict[str, Any]] = ()
) -> bytes:
    """Return the last fields of a `Recommendation` message."""
    why = [headrace_pb2.Contribution(**part) for part in contributions]
    end = bytes(headrace_pb2.Recommendation(rules=rules, contributions=why).SerializeToString())
    return end + fields.message if fields else end


class RenderedItems(ItemList):
    """A list that can be written as bytes."""

    @abstractmethod
    def to_json(self) -> bytes:
        """Return the list as JSON."""

    @abstractmethod
    def to_message(self) -> bytes:
        """Return the list as the items of an `Answer` message."""


class Items(RenderedItems):
    """One list, best first, as parallel lists: catalogue row, score, reason, and the rules that moved the item."""

    def __init__(
        self, heads: ItemHeads, rows: list[int], scores: list[float], reasons: list[RenderedReason], rules: list[Rules],
        fields: Fields = (),
    ) -> None:  # fmt: skip
        """`fields`: names of the product fields that items carry."""
        self.heads, self.rows, self.scores, self.reasons, self.rules = heads, rows, scores, reasons, rules
        self.fields = fields
        self.contributions: list[list[dict[str, Any]]] = []
        """With `explain`: of each item, by how much its score is due to what."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Recommendation]:
        ids, titles = self.heads.catalogue.ids, self.heads.catalogue.titles
        fields = self._fields()
        for k, row in enumerate(self.rows):
            why, parts, rules = self.reasons[k], self.contributions[k] if self.contributions else (), self.rules[k]
            said = ids[row], titles[row], self.scores[k], why.source, why.reason, rules, parts
            of_product = fields[k]
            yield DetailedRecommendation(*said, of_product.values) if of_product else Recommendation(*said)

    def _fields(self) -> Sequence[RenderedFields | None]:
        """Return the product fields of each item, None where the list carries none."""
        return self.heads.fields.get(self.fields, self.rows) if self.fields else [None] * len(self.rows)

    def sources(self) -> list[tuple[str, str]]:
        """Return the id of each item and where it came from."""
        ids = self.heads.catalogue.ids
        return [(ids[row], why.source) for row, why in zip(self.rows, self.reasons, strict=True)]

    def to_json(self) -> bytes:
        """Return the list as JSON."""
        return orjson.dumps(list(self))

    def to_message(self) -> bytes:
        """Return the list as the items of an `Answer` message.

        From byte strings that are kept: a message object for each item takes a tenth of an answer's time more.
        """
        parts: list[bytes] = []
        numbers = self.heads.numbers(np.array(self.rows, np.int64)).tolist()
        heads, fields = self.heads.message, self._fields()
        for k, number in enumerate(numbers):
            end = end_message(self.rules[k], fields[k], self.contributions[k] if self.contributions else ())
            body = heads[number] + double(self.scores[k]) + self.reasons[k].message + end
            parts += (TAG, varint(len(body)), body)
        return b"".join(parts)
