"""What is said of the items of lists, made once and kept until the catalogue changes: most answers repeat a few."""

from serving.catalogue import Catalogue
from serving.items import Said
from serving.reasons import reason

MAX_KEPT = 100_000


class Phrases:
    """Reasons with the source they go with, by what they depend on."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, catalogue.version
        self._kept: dict[tuple[str, str, int | str, str], Said] = {}

    def plain(self, source: str, code: str, lang: str) -> Said:
        """Return a reason that has no arguments."""
        key = (source, code, "", lang)
        return self._find(key) or self._keep(key, Said(source, reason(code, lang)))

    def of_item(self, source: str, code: str, lang: str, item: int) -> Said:
        """Return a reason that names an item, by its id hash."""
        key = (source, code, item, lang)
        said = self._find(key)
        if said is None:
            row = self._catalogue.row_of(item)
            name, title = ("", "") if row < 0 else (self._catalogue.ids[row], self._catalogue.titles[row])
            said = self._keep(key, Said(source, reason(code, lang, {"item": title}, item=name)))
        return said

    def of_scope(self, source: str, trending: bool, lang: str, scope: str) -> Said:
        """Return the reason of an item of a scope's list."""
        code = "trending_in" if trending else "popular_in"
        key = (source, code, scope, lang)
        return self._find(key) or self._keep(key, Said(source, reason(code, lang, scope=scope)))

    def _find(self, key: tuple[str, str, int | str, str]) -> Said | None:
        if self._catalogue.version != self._version or len(self._kept) > MAX_KEPT:
            self._kept.clear()
            self._version = self._catalogue.version
        return self._kept.get(key)

    def _keep(self, key: tuple[str, str, int | str, str], said: Said) -> Said:
        self._kept[key] = said
        return said
