"""The items of a list as what they are made of: they become objects or bytes only where somebody asks for them."""

import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from schemas.compiled.distinct import distinct
from schemas.varint import varint
from serving.catalogue.catalogue import Catalogue
from serving.proto import headrace_pb2
from serving.rendering.byte_strings import ByteStringPool
from serving.request.answer import ItemList, Recommendation, Rules
from serving.request.reasons import Reason

MAX_KEPT = 1_000_000
"""Items whose heads are kept, some 100 bytes each."""
NOT_YET = -1
Rows = npt.NDArray[np.int64]


class RenderedReason:
    """Where an item came from and why it is there; most lists say the same few things, so it is written once."""

    def __init__(self, source: str, reason: Reason) -> None:
        self.source, self.reason = source, reason

    @cached_property
    def json(self) -> bytes:
        return b',"source":%b,"reason":%b' % (orjson.dumps(self.source), orjson.dumps(self.reason))

    @cached_property
    def message(self) -> bytes:
        why = headrace_pb2.Reason(code=self.reason.code, args=self.reason.args, text=self.reason.text)
        return bytes(headrace_pb2.Recommendation(source=self.source, reason=why).SerializeToString())


class Heads:
    """How each item of a catalogue begins in JSON and in Protocol Buffers, kept until names in the catalogue change."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._begin()

    def _begin(self) -> None:
        self._version = self.catalogue.names_version
        self._rows = list[int]()
        self._json, self._message = ByteStringPool(), ByteStringPool()
        self._number_of = np.full(len(self.catalogue), NOT_YET, np.int32)

    def numbers(self, rows: Rows) -> Rows:
        """Return the number of each row's pieces: `{"item":...,"title":...,"score":`, and the like of a message.

        They count in `json` and `message` as they are now; a later call may begin anew. `rows`: of any shape.
        """
        if self.catalogue.names_version != self._version or len(self._rows) > MAX_KEPT:
            self._begin()
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
        """Heads as JSON, by number; made here, for a server may never be asked for one of both."""
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


TAG = bytes([headrace_pb2.Answer.DESCRIPTOR.fields_by_name["items"].number << 3 | 2])  # 2: what follows has a length
double = struct.Struct("<d").pack
SCORE_TAG = bytes([headrace_pb2.Recommendation.DESCRIPTOR.fields_by_name["score"].number << 3 | 1])


def end_json(rules: Rules, contributions: Sequence[dict[str, Any]] = ()) -> bytes:
    """Return how an item ends in JSON, and the comma behind it."""
    return b',"rules":%b,"contributions":%b},' % (orjson.dumps(rules), orjson.dumps(contributions))


NOTHING_MORE = end_json(())


def end_message(rules: Rules, contributions: Sequence[dict[str, Any]] = ()) -> bytes:
    """Return the last fields of a Recommendation message."""
    why = [headrace_pb2.Contribution(**part) for part in contributions]
    return bytes(headrace_pb2.Recommendation(rules=rules, contributions=why).SerializeToString())


class RenderedItems(ItemList):
    """A list that knows its bytes."""

    @abstractmethod
    def to_json(self) -> bytes:
        """Return the list as JSON."""

    @abstractmethod
    def to_message(self) -> bytes:
        """Return the list as the items of an `Answer` message."""


class Items(RenderedItems):
    """The items of a list, best first: catalogue row, score, what is said of it, and the rules that moved it."""

    def __init__(
        self, heads: Heads, rows: list[int], scores: list[float], said: list[RenderedReason], rules: list[Rules]
    ) -> None:
        self.heads, self.rows, self.scores, self.said, self.rules = heads, rows, scores, said, rules
        self.contributions: list[list[dict[str, Any]]] = []
        """With `explain`: of each item, by how much its score is due to what."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Recommendation]:
        ids, titles = self.heads.catalogue.ids, self.heads.catalogue.titles
        for k, row in enumerate(self.rows):
            said, why = self.said[k], self.contributions[k] if self.contributions else ()
            yield Recommendation(ids[row], titles[row], self.scores[k], said.source, said.reason, self.rules[k], why)

    def sources(self) -> list[tuple[str, str]]:
        ids = self.heads.catalogue.ids
        return [(ids[row], said.source) for row, said in zip(self.rows, self.said, strict=True)]

    def to_json(self) -> bytes:
        if not self.rows:
            return b"[]"
        pieces = [NOTHING_MORE] * (4 * len(self))
        heads = self.heads.numbers(np.array(self.rows, np.int64)).tolist()
        known = self.heads.json
        pieces[0::4] = [known[number] for number in heads]
        pieces[1::4] = orjson.dumps(self.scores)[1:-1].split(b",")
        pieces[2::4] = [said.json for said in self.said]
        if self.contributions:
            pieces[3::4] = map(end_json, self.rules, self.contributions)
        elif any(self.rules):
            pieces[3::4] = map(end_json, self.rules)
        return b"[%b]" % b"".join(pieces)[:-1]

    def to_message(self) -> bytes:
        pieces: list[bytes] = []
        heads = self.heads.numbers(np.array(self.rows, np.int64)).tolist()
        known = self.heads.message
        for k, number in enumerate(heads):
            end = end_message(self.rules[k], self.contributions[k] if self.contributions else ())
            body = known[number] + double(self.scores[k]) + self.said[k].message + end
            pieces += (TAG, varint(len(body)), body)
        return b"".join(pieces)
