"""The lists of a batch side by side; the first one that is asked for its bytes has those of all written by a kernel.

They say what `Items` would (a test compares them); made one by one in Python they take ten times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from schemas.compiled.copy_bytes import copy_bytes
from schemas.compiled.njit import njit, njit_no_refcount
from serving.rendering.byte_strings import Bytes, ByteStringPool, Packed, length, put
from serving.rendering.items import TAG as ITEM_TAG
from serving.rendering.items import Heads, Items, RenderedItems, end_json, end_message
from serving.rendering.reason_cache import RenderedReasons
from serving.request.answer import Recommendation, Rules

Ints = npt.NDArray[np.int64]
TAG = ITEM_TAG[0]
OPEN, CLOSE, COMMA = (ord(sign) for sign in "[],")


class _Parts(NamedTuple):
    """What lists are put together from: their lengths, and of each item (B, K) the numbers of three pieces."""

    n: Ints
    heads_at: Ints
    heads: Packed
    said: Ints
    phrases: Packed
    moved: Ints
    ends: Packed


@njit_no_refcount()
def _most(parts: _Parts, more: int) -> int:
    """Return how many bytes lists can take at most, `more` for each item."""
    n, heads_at, heads, said, phrases, moved, ends = parts
    size = 2 * len(n)
    for b in range(len(n)):
        for k in range(n[b]):
            size += length(heads, heads_at[b, k]) + length(phrases, said[b, k]) + length(ends, moved[b, k]) + more
    return size


@njit()
def _write_json(parts: _Parts, scores: Bytes) -> tuple[Bytes, Ints]:
    """Return JSON lists, and where each begins and ends; `scores` is the JSON of all scores, (B, K)."""
    n, heads_at, heads, said, phrases, moved, ends = parts
    out = np.empty(_most(parts, 0) + len(scores), np.uint8)
    bounds = np.zeros(len(n) + 1, np.int64)
    at, read = 0, 1  # behind the first bracket of the scores
    for b in range(len(n)):
        out[at], at, read = OPEN, at + 1, read + 1
        for k in range(heads_at.shape[1]):
            first = read
            while scores[read] != COMMA and scores[read] != CLOSE:
                read += 1
            if k < n[b]:
                at = put(heads, heads_at[b, k], out, at)
                at = copy_bytes(scores, first, read, out, at)
                at = put(phrases, said[b, k], out, at)
                at = put(ends, moved[b, k], out, at)
            read += 1
        if n[b] > 0:
            out[at - 1] = CLOSE  # instead of the comma
        else:
            out[at], at = CLOSE, at + 1
        read += 1  # the comma between two rows
        bounds[b + 1] = at
    return out[:at], bounds


@njit()
def _write_messages(parts: _Parts, scores: Bytes) -> tuple[Bytes, Ints]:
    """Return the items of `Answer` messages, and where each begins and ends; `scores` (B, K · 8): their doubles."""
    n, heads_at, heads, said, phrases, moved, ends = parts
    out = np.empty(_most(parts, 8 + 6), np.uint8)  # score, tag and a length
    bounds = np.zeros(len(n) + 1, np.int64)
    at = 0
    for b in range(len(n)):
        for k in range(n[b]):
            left = length(heads, heads_at[b, k]) + 8 + length(phrases, said[b, k]) + length(ends, moved[b, k])
            out[at], at = TAG, at + 1
            while left > 127:  # base 128, lowest digit first
                out[at], at, left = left & 127 | 128, at + 1, left >> 7
            out[at], at = left, at + 1
            at = put(heads, heads_at[b, k], out, at)
            at = copy_bytes(scores[b], 8 * k, 8 * k + 8, out, at)
            at = put(phrases, said[b, k], out, at)
            at = put(ends, moved[b, k], out, at)
        bounds[b + 1] = at
    return out[:at], bounds


@lru_cache(maxsize=256)  # few rules move anything, and so do few sets of them
def offsets(end: Callable[[Rules], bytes], rules: tuple[Rules, ...]) -> Packed:
    pieces = ByteStringPool()
    pieces.extend([end(one) for one in rules])
    return pieces.packed


class RenderedLists:
    """Lists of one batch."""

    def __init__(
        self, heads: Heads, rendered: RenderedReasons, n: Ints, rows: Ints, hashes: npt.NDArray[np.uint64],
        scores: npt.NDArray[np.float64], said: Ints, moved: Ints, rules: Sequence[Rules],
    ) -> None:  # fmt: skip
        """`n` (B,): items of each list; (B, K): their rows, id hashes, scores, numbers in `rendered` and in `rules`."""
        self.heads, self.rendered, self.n, self.rows, self.hashes, self.scores = (
            heads,
            rendered,
            n,
            rows,
            hashes,
            scores,
        )
        self.said, self.moved, self.rules = said, moved, rules

    def json(self, place: int) -> bytes:
        """Return the JSON of a list."""
        data, bounds = self._json
        return data[bounds[place] : bounds[place + 1]]

    def message(self, place: int) -> bytes:
        """Return a list as the items of an `Answer` message."""
        data, bounds = self._messages
        return data[bounds[place] : bounds[place + 1]]

    @cached_property
    def _json(self) -> tuple[bytes, list[int]]:
        numbers = self.heads.numbers(self.rows)
        parts = self._parts(numbers, self.heads.json, self.rendered.json, end_json)
        scores = orjson.dumps(self.scores, option=orjson.OPT_SERIALIZE_NUMPY)
        data, bounds = _write_json(parts, np.frombuffer(scores, np.uint8))
        return data.tobytes(), bounds.tolist()

    @cached_property
    def _messages(self) -> tuple[bytes, list[int]]:
        numbers = self.heads.numbers(self.rows)
        parts = self._parts(numbers, self.heads.message, self.rendered.message, end_message)
        data, bounds = _write_messages(parts, self.scores.view(np.uint8))
        return data.tobytes(), bounds.tolist()

    def _parts(
        self, heads_at: Ints, heads: ByteStringPool, phrases: ByteStringPool, end: Callable[[Rules], bytes]
    ) -> _Parts:
        ends = offsets(end, tuple(self.rules))
        return _Parts(self.n, heads_at, heads.packed, self.said, phrases.packed, self.moved, ends)


class LazyItems(RenderedItems):
    """One list of a batch."""

    def __init__(self, lists: RenderedLists, place: int) -> None:
        self._lists, self._place, self._n = lists, place, int(lists.n[place])

    @cached_property
    def alone(self) -> Items:
        """The same list without those beside it."""
        lists, b = self._lists, self._place
        n = self._n
        said = [lists.rendered.said(number) for number in lists.said[b, :n].tolist()]
        rules = [lists.rules[number] for number in lists.moved[b, :n].tolist()]
        return Items(lists.heads, lists.rows[b, :n].tolist(), lists.scores[b, :n].tolist(), said, rules)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The id hashes of the items."""
        return self._lists.hashes[self._place, : self._n]

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.alone)

    def sources(self) -> list[tuple[str, str]]:
        lists, ids, phrases = self._lists, self._lists.heads.catalogue.ids, self._lists.rendered.phrases
        shown = zip(lists.rows[self._place].tolist(), lists.said[self._place].tolist(), strict=True)
        return [(ids[row], phrases[number][0]) for row, number in islice(shown, self._n)]

    def to_json(self) -> bytes:
        return self._lists.json(self._place)

    def to_message(self) -> bytes:
        return self._lists.message(self._place)
