"""The items of a list as what they are made of: they become objects or bytes only where somebody asks for them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import orjson

from serving.catalogue import Catalogue
from serving.proto import headrace_pb2
from serving.reasons import Reason

MAX_KEPT = 200_000
Rules = tuple[str, ...]


@dataclass(slots=True)
class Recommendation:
    """One item of an answer."""

    item: str
    title: str
    score: float
    source: str
    reason: Reason
    rules: Sequence[str] = ()
    """Rules that moved it."""
    contributions: Sequence[dict[str, Any]] = ()
    """With `explain`: by how much its score is due to what (`kind`, `item`, `share`)."""


class Said:
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


class _Kept(dict[int, bytes]):
    """What was made of a row once."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        self._make = make

    def __missing__(self, row: int) -> bytes:
        made = self[row] = self._make(row)
        return made


class Heads:
    """How each item of a catalogue begins in JSON and in Protocol Buffers, kept until the catalogue changes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._version = catalogue.version
        self._json, self._message = _Kept(self._make_json), _Kept(self._make_message)

    def json(self, rows: Sequence[int]) -> list[bytes]:
        """Return `{"item":...,"title":...,"score":` of each row."""
        self._look()
        return list(map(self._json.__getitem__, rows))

    def message(self, rows: Sequence[int]) -> list[bytes]:
        """Return item and title of each row as fields of a Recommendation message, and the tag of its score."""
        self._look()
        return list(map(self._message.__getitem__, rows))

    def _make_json(self, row: int) -> bytes:
        item, title = orjson.dumps(self.catalogue.ids[row]), orjson.dumps(self.catalogue.titles[row])
        return b'{"item":%b,"title":%b,"score":' % (item, title)

    def _make_message(self, row: int) -> bytes:
        head = headrace_pb2.Recommendation(item=self.catalogue.ids[row], title=self.catalogue.titles[row])
        return head.SerializeToString() + SCORE_TAG

    def _look(self) -> None:
        if self.catalogue.version != self._version or max(len(self._json), len(self._message)) > MAX_KEPT:
            self._json.clear()
            self._message.clear()
            self._version = self.catalogue.version


SCORE_TAG = bytes([headrace_pb2.Recommendation.DESCRIPTOR.fields_by_name["score"].number << 3 | 1])


class Items(Sequence[Recommendation]):
    """The items of a list, best first: catalogue row, score, what is said of it, and the rules that moved it."""

    def __init__(
        self, heads: Heads, rows: list[int], scores: list[float], said: list[Said], rules: list[Rules]
    ) -> None:
        self.heads, self.rows, self.scores, self.said, self.rules = heads, rows, scores, said, rules
        self.contributions: list[list[dict[str, Any]]] = []
        """With `explain`: of each item, by how much its score is due to what."""

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Recommendation]: ...

    def __getitem__(self, index: int | slice) -> Recommendation | Sequence[Recommendation]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Recommendation]:
        ids, titles = self.heads.catalogue.ids, self.heads.catalogue.titles
        for k, row in enumerate(self.rows):
            said, why = self.said[k], self.contributions[k] if self.contributions else ()
            yield Recommendation(ids[row], titles[row], self.scores[k], said.source, said.reason, self.rules[k], why)
