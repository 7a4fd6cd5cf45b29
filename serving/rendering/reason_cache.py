"""The reasons of items, made once and kept until names in the catalogue change: most answers share a few."""

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np

from serving.catalogue.catalogue import Catalogue
from serving.rendering.byte_strings import ByteStringPool
from serving.rendering.items import RenderedReason
from serving.request.reasons import reason
from state.rows.slot_map import SlotMap

MAX_RENDERED = 500_000
"""Reasons kept as bytes, some 400 each with what finds them."""
MAX_REASONS = 100_000


ReasonKey = tuple[str, str, str, int | str | None]
"""Source, code and language, and what it is about: an item by its id hash, a scope by its name, or nothing.

Of `buy_again` it is the interval in days."""


class RenderedReasons:
    """The reasons that lists of batches had since the catalogue changed, by number; earlier lists keep theirs."""

    def __init__(self, made: Callable[[ReasonKey], RenderedReason]) -> None:
        self.reason_of = made
        self.reason_keys: list[ReasonKey] = []
        self._number_of: dict[ReasonKey, int] = {}
        self._json, self._message = ByteStringPool(), ByteStringPool()
        self.keys, self.number_at = SlotMap(MAX_RENDERED), np.zeros(MAX_RENDERED, np.int64)
        """Slots by what a kernel makes of a reason key, and the number at each."""

    def add(self, key: ReasonKey) -> int:
        """Add a key; return its number."""
        self.reason_keys.append(key)
        return len(self.reason_keys) - 1

    def number(self, key: ReasonKey) -> int:
        """Return the number of a reason key that kernels have no key for."""
        found = self._number_of.get(key)
        if found is None:
            found = self._number_of[key] = self.add(key)
        return found

    def reason(self, number: int) -> RenderedReason:
        """Return the reason with a number."""
        return self.reason_of(self.reason_keys[number])

    @property
    def json(self) -> ByteStringPool:
        """All of them as JSON, by number; made here, since a server may never need those of the other format."""
        self._json.extend([self.reason_of(key).json for key in self.reason_keys[len(self._json) :]])
        return self._json

    @property
    def message(self) -> ByteStringPool:
        """All of them as fields of a `Recommendation` message, by number."""
        self._message.extend([self.reason_of(key).message for key in self.reason_keys[len(self._message) :]])
        return self._message

    def record(self, numbers: Mapping[int, int]) -> None:
        """Let kernels find numbers by their keys."""
        numbers = dict(islice(numbers.items(), MAX_RENDERED - len(self.keys)))
        slots = self.keys.assign(np.array(list(numbers), np.uint64))
        self.number_at[slots] = list(numbers.values())


class ReasonCache:
    """Sources and reasons by what they depend on; one that is not there yet is made."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._begin()

    def _begin(self) -> None:
        self._version = self._catalogue.names_version
        self._reasons: dict[ReasonKey, RenderedReason] = {}
        self.rendered = RenderedReasons(self._made)

    def refresh(self) -> None:
        """Drop what was made before names in the catalogue changed, or where there is too much of it."""
        full = len(self.rendered.reason_keys) > MAX_RENDERED or len(self._reasons) > MAX_REASONS
        if full or self._catalogue.names_version != self._version:
            self._begin()

    def __getitem__(self, key: ReasonKey) -> RenderedReason:
        found = self._reasons.get(key)
        if found is None:
            found = self._made(key)
            if self.is_final(key):
                self._reasons[key] = found
        return found

    def is_final(self, key: ReasonKey) -> bool:
        """Return whether a reason may be kept: one about an item that the catalogue lacks may not."""
        about = key[-1]
        return not isinstance(about, int) or self._catalogue.row_of(about) >= 0

    def _made(self, key: ReasonKey) -> RenderedReason:
        source, code, lang, about = key
        if about is None:
            why = reason(code, lang)
        elif code == "buy_again":
            why = reason(code, lang, interval_days=str(about))
        elif isinstance(about, str):
            why = reason(code, lang, scope=about)
        else:
            row = self._catalogue.row_of(about)
            name, title = ("", "") if row < 0 else (self._catalogue.ids[row], self._catalogue.titles[row])
            why = reason(code, lang, {"item": title}, item=name)
        return RenderedReason(source, why)
