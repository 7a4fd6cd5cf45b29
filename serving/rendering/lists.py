"""The lists of a batch side by side; the first call for a list's bytes has a kernel write those of all.

The bytes equal those of `Items` (a test compares them), which takes ten times as long in Python, list by list.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import orjson

from serving.rendering.byte_strings import ByteStringPool, Packed
from serving.rendering.field_cache import RenderedFields
from serving.rendering.item_heads import ItemHeads
from serving.rendering.items import Items, RenderedItems, end_json, end_message
from serving.rendering.list_writer import ListParts, write_json, write_messages
from serving.rendering.reason_cache import RenderedReasons
from serving.request.answer import Recommendation, Rules
from serving.request.product_fields import Fields

Ints = npt.NDArray[np.int64]
End = Callable[[Rules, RenderedFields | None], bytes]


@lru_cache(maxsize=256)  # few rules move anything, and so do few sets of them
def offsets(end: End, rules: tuple[Rules, ...]) -> Packed:
    """Return the ends of items by the number of the set of rules that moved them."""
    pieces = ByteStringPool()
    pieces.extend([end(one, None) for one in rules])
    return pieces.packed


class RenderedLists:
    """Lists of one batch."""

    def __init__(
        self, heads: ItemHeads, rendered: RenderedReasons, n: Ints, rows: Ints, hashes: npt.NDArray[np.uint64],
        scores: npt.NDArray[np.float64], reasons_at: Ints, moved: Ints, rules: Sequence[Rules],
        fields: Mapping[int, Fields],
    ) -> None:  # fmt: skip
        """`n` (B,): items of each list; (B, K): their rows, id hashes, scores, numbers in `rendered` and in `rules`.

        `fields`: by place in the batch the product fields that items of the list carry, where they carry any.
        """
        self.heads, self.rendered, self.n, self.rows, self.hashes, self.scores = (
            heads,
            rendered,
            n,
            rows,
            hashes,
            scores,
        )
        self.reasons_at, self.moved, self.rules, self.fields = reasons_at, moved, rules, fields

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
        data, bounds = write_json(parts, np.frombuffer(scores, np.uint8))
        return data.tobytes(), bounds.tolist()

    @cached_property
    def _messages(self) -> tuple[bytes, list[int]]:
        numbers = self.heads.numbers(self.rows)
        parts = self._parts(numbers, self.heads.message, self.rendered.message, end_message)
        data, bounds = write_messages(parts, self.scores.view(np.uint8))
        return data.tobytes(), bounds.tolist()

    def _parts(self, heads_at: Ints, heads: ByteStringPool, reasons: ByteStringPool, end: End) -> ListParts:
        ends_at, ends = self._ends_with_fields(end) if self.fields else (self.moved, offsets(end, tuple(self.rules)))
        return ListParts(self.n, heads_at, heads.packed, self.reasons_at, reasons.packed, ends_at, ends)

    def _ends_with_fields(self, end: End) -> tuple[Ints, Packed]:
        """Return the ends of items, and which each item has: those of lists with product fields have their own."""
        ends, ends_at = [end(one, None) for one in self.rules], self.moved.copy()
        for place, names in self.fields.items():
            n, first = int(self.n[place]), len(ends)
            fields = self.heads.fields.get(names, self.rows[place, :n].tolist())
            moved = self.moved[place, :n].tolist()
            ends += [end(self.rules[by], of_item) for by, of_item in zip(moved, fields, strict=True)]
            ends_at[place, :n] = range(first, len(ends))
        pieces = ByteStringPool()
        pieces.extend(ends)
        return ends_at, pieces.packed


class LazyItems(RenderedItems):
    """One list of a batch."""

    def __init__(self, lists: RenderedLists, place: int) -> None:
        self._lists, self._place, self._n = lists, place, int(lists.n[place])

    @cached_property
    def alone(self) -> Items:
        """The same list without those beside it."""
        lists, b = self._lists, self._place
        n = self._n
        reasons = [lists.rendered.reason(number) for number in lists.reasons_at[b, :n].tolist()]
        rules = [lists.rules[number] for number in lists.moved[b, :n].tolist()]
        rows, scores = lists.rows[b, :n].tolist(), lists.scores[b, :n].tolist()
        return Items(lists.heads, rows, scores, reasons, rules, lists.fields.get(b, ()))

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The id hashes of the items."""
        return self._lists.hashes[self._place, : self._n]

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.alone)

    def sources(self) -> list[tuple[str, str]]:
        """Return the id of each item and where it came from."""
        lists, ids, reasons = self._lists, self._lists.heads.catalogue.ids, self._lists.rendered.reason_keys
        shown = zip(lists.rows[self._place].tolist(), lists.reasons_at[self._place].tolist(), strict=True)
        return [(ids[row], reasons[number][0]) for row, number in islice(shown, self._n)]

    def to_json(self) -> bytes:
        """Return the list as JSON; the first one has those of its batch written."""
        return self._lists.json(self._place)

    def to_message(self) -> bytes:
        """Return the list as the items of an `Answer` message; the first one has those of its batch written."""
        return self._lists.message(self._place)
