"""What is said of the items of lists, made once and kept until the catalogue changes: most answers repeat a few."""

import numpy as np

from serving.catalogue import Catalogue
from serving.items import Said
from serving.pieces import Pieces
from serving.reasons import reason
from state.slot_map import SlotMap

MAX_KEPT = 100_000
Phrase = tuple[str, str, str, int | str | None]
"""Source, code and language, and what it is about: an item by its id hash, a scope by its name, or nothing.

Of `buy_again` it is the interval in days."""


class Spoken:
    """All that was said since the catalogue changed, by number; lists of before keep what was said then."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._json, self._message = Pieces(), Pieces()
        self.of: dict[Phrase, int] = {}
        self.keys, self.number_at = SlotMap(MAX_KEPT), np.zeros(MAX_KEPT, np.int64)
        """Slots by what a kernel makes of a phrase, and the number at each."""

    def add(self, said: Said) -> int:
        """Take in what is said; return its number."""
        self.said.append(said)
        return len(self.said) - 1

    @property
    def json(self) -> Pieces:
        """All of it as JSON, by number; made here, for a server may never be asked for one of both."""
        for said in self.said[len(self._json) :]:
            self._json.add(said.json)
        return self._json

    @property
    def message(self) -> Pieces:
        """All of it as fields of a `Recommendation` message, by number."""
        for said in self.said[len(self._message) :]:
            self._message.add(said.message)
        return self._message

    def learn(self, key: int, number: int) -> None:
        """Let kernels find a number."""
        if len(self.keys) < MAX_KEPT:
            self.number_at[self.keys.assign(np.array([key], np.uint64))] = number


class Phrases:
    """Sources and reasons by what they depend on; one that is not there yet is made."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, catalogue.names_version
        self.spoken = Spoken()

    def look(self) -> None:
        """Forget what was said of the catalogue before names in it changed."""
        if self._catalogue.names_version != self._version or len(self.spoken.said) > MAX_KEPT:
            self.spoken = Spoken()
            self._version = self._catalogue.names_version

    def __getitem__(self, phrase: Phrase) -> Said:
        return self.spoken.said[self.number(phrase)]

    def number(self, phrase: Phrase) -> int:
        """Return the number of a phrase among what was spoken."""
        found = self.spoken.of.get(phrase)
        if found is None:
            found = self.spoken.add(self._made(phrase))
            if self._is_final(phrase[-1]):
                self.spoken.of[phrase] = found
        return found

    def _is_final(self, about: int | str | None) -> bool:
        """Say whether a phrase may be kept: one about an item that the catalogue does not know yet may not."""
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
