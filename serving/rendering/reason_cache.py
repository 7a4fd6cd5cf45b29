"""What is said of the items of lists, made once and kept until the catalogue changes: most answers repeat a few."""

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np

from serving.catalogue.catalogue import Catalogue
from serving.rendering.byte_strings import Pieces
from serving.rendering.items import Said
from serving.request.reasons import reason
from state.rows.slot_map import SlotMap

MAX_SPOKEN = 500_000
"""Phrases kept as bytes, some 400 each with what finds them."""
MAX_SAID = 100_000


Phrase = tuple[str, str, str, int | str | None]
"""Source, code and language, and what it is about: an item by its id hash, a scope by its name, or nothing.

Of `buy_again` it is the interval in days."""


class Spoken:
    """What lists of batches said since the catalogue changed, by number; lists of before keep theirs."""

    def __init__(self, made: Callable[[Phrase], Said]) -> None:
        self.said_of = made
        self.phrases: list[Phrase] = []
        self._number_of: dict[Phrase, int] = {}
        self._json, self._message = Pieces(), Pieces()
        self.keys, self.number_at = SlotMap(MAX_SPOKEN), np.zeros(MAX_SPOKEN, np.int64)
        """Slots by what a kernel makes of a phrase, and the number at each."""

    def add(self, phrase: Phrase) -> int:
        """Take in a phrase; return its number."""
        self.phrases.append(phrase)
        return len(self.phrases) - 1

    def number(self, phrase: Phrase) -> int:
        """Return the number of a phrase that has no key."""
        found = self._number_of.get(phrase)
        if found is None:
            found = self._number_of[phrase] = self.add(phrase)
        return found

    def said(self, number: int) -> Said:
        """Return what a phrase says."""
        return self.said_of(self.phrases[number])

    @property
    def json(self) -> Pieces:
        """All of it as JSON, by number; made here, for a server may never be asked for one of both."""
        self._json.extend([self.said_of(phrase).json for phrase in self.phrases[len(self._json) :]])
        return self._json

    @property
    def message(self) -> Pieces:
        """All of it as fields of a `Recommendation` message, by number."""
        self._message.extend([self.said_of(phrase).message for phrase in self.phrases[len(self._message) :]])
        return self._message

    def learn(self, numbers: Mapping[int, int]) -> None:
        """Let kernels find numbers by their keys."""
        numbers = dict(islice(numbers.items(), MAX_SPOKEN - len(self.keys)))
        slots = self.keys.assign(np.array(list(numbers), np.uint64))
        self.number_at[slots] = list(numbers.values())


class Phrases:
    """Sources and reasons by what they depend on; one that is not there yet is made."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._begin()

    def _begin(self) -> None:
        self._version = self._catalogue.names_version
        self._said: dict[Phrase, Said] = {}
        self.spoken = Spoken(self._made)

    def look(self) -> None:
        """Forget what was said of the catalogue before names in it changed."""
        full = len(self.spoken.phrases) > MAX_SPOKEN or len(self._said) > MAX_SAID
        if full or self._catalogue.names_version != self._version:
            self._begin()

    def __getitem__(self, phrase: Phrase) -> Said:
        found = self._said.get(phrase)
        if found is None:
            found = self._made(phrase)
            if self.is_final(phrase):
                self._said[phrase] = found
        return found

    def is_final(self, phrase: Phrase) -> bool:
        """Say whether a phrase may be kept: one about an item that the catalogue does not know yet may not."""
        about = phrase[-1]
        return not isinstance(about, int) or self._catalogue.row_of(about) >= 0

    def _made(self, phrase: Phrase) -> Said:
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
        return Said(source, why)
