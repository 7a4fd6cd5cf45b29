"""What is said of the items of lists, made once and kept until the catalogue changes: most answers repeat a few."""

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
MAX_SAID = 100_000


ReasonKey = tuple[str, str, str, int | str | None]
"""Source, code and language, and what it is about: an item by its id hash, a scope by its name, or nothing.

Of `buy_again` it is the interval in days."""


class RenderedReasons:
    """What lists of batches said since the catalogue changed, by number; lists of before keep theirs."""

    def __init__(self, made: Callable[[ReasonKey], RenderedReason]) -> None:
        self.reason_of = made
        self.phrases: list[ReasonKey] = []
        self._number_of: dict[ReasonKey, int] = {}
        self._json, self._message = ByteStringPool(), ByteStringPool()
        self.keys, self.number_at = SlotMap(MAX_RENDERED), np.zeros(MAX_RENDERED, np.int64)
        """Slots by what a kernel makes of a phrase, and the number at each."""

    def add(self, phrase: ReasonKey) -> int:
        """Take in a phrase; return its number."""
        self.phrases.append(phrase)
        return len(self.phrases) - 1

    def number(self, phrase: ReasonKey) -> int:
        """Return the number of a phrase that has no key."""
        found = self._number_of.get(phrase)
        if found is None:
            found = self._number_of[phrase] = self.add(phrase)
        return found

    def said(self, number: int) -> RenderedReason:
        """Return what a phrase says."""
        return self.reason_of(self.phrases[number])

    @property
    def json(self) -> ByteStringPool:
        """All of it as JSON, by number; made here, for a server may never be asked for one of both."""
        self._json.extend([self.reason_of(phrase).json for phrase in self.phrases[len(self._json) :]])
        return self._json

    @property
    def message(self) -> ByteStringPool:
        """All of it as fields of a `Recommendation` message, by number."""
        self._message.extend([self.reason_of(phrase).message for phrase in self.phrases[len(self._message) :]])
        return self._message

    def learn(self, numbers: Mapping[int, int]) -> None:
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
        self._said: dict[ReasonKey, RenderedReason] = {}
        self.rendered = RenderedReasons(self._made)

    def look(self) -> None:
        """Forget what was said of the catalogue before names in it changed."""
        full = len(self.rendered.phrases) > MAX_RENDERED or len(self._said) > MAX_SAID
        if full or self._catalogue.names_version != self._version:
            self._begin()

    def __getitem__(self, phrase: ReasonKey) -> RenderedReason:
        found = self._said.get(phrase)
        if found is None:
            found = self._made(phrase)
            if self.is_final(phrase):
                self._said[phrase] = found
        return found

    def is_final(self, phrase: ReasonKey) -> bool:
        """Say whether a phrase may be kept: one about an item that the catalogue does not know yet may not."""
        about = phrase[-1]
        return not isinstance(about, int) or self._catalogue.row_of(about) >= 0

    def _made(self, phrase: ReasonKey) -> RenderedReason:
        source, code, lang, about = phrase
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
