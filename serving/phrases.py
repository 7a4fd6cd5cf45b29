"""What is said of the items of lists, made once and kept until the catalogue changes: most answers repeat a few."""

from serving.catalogue import Catalogue
from serving.items import Said
from serving.reasons import reason

MAX_KEPT = 100_000
Phrase = tuple[str, str, str, int | str | None]
"""Source, code and language, and what it is about: an item by its id hash, a scope by its name, or nothing."""


class Phrases(dict[Phrase, Said]):
    """Sources and reasons by what they depend on; one that is not there yet is made."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, catalogue.version

    def look(self) -> None:
        """Forget what was said of the catalogue before it changed."""
        if self._catalogue.version != self._version or len(self) > MAX_KEPT:
            self.clear()
            self._version = self._catalogue.version

    def __missing__(self, phrase: Phrase) -> Said:
        source, code, lang, about = phrase
        if about is None:
            why = reason(code, lang)
        elif isinstance(about, str):
            why = reason(code, lang, scope=about)
        else:
            row = self._catalogue.row_of(about)
            name, title = ("", "") if row < 0 else (self._catalogue.ids[row], self._catalogue.titles[row])
            why = reason(code, lang, {"item": title}, item=name)
        said = self[phrase] = Said(source, why)
        return said
