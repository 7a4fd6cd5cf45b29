"""The categories below each category: `toys/cars` lies below `toys`."""

from bisect import bisect_left

from serving.catalogue.catalogue import Catalogue

MOST_BELOW = 1_000


class CategoryTree:
    """Category paths of the catalogue in order, so that those below one stand together."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, -1
        self._paths: list[str] = []

    def under(self, path: str) -> list[str]:
        """Return a category and those below it, at most MOST_BELOW of these, the first by name."""
        if self._version != self._catalogue.version:
            self._version = self._catalogue.version
            self._paths = sorted(filter(None, self._catalogue.category.view(0).words))
        path = path.rstrip("/")
        first = bisect_left(self._paths, f"{path}/")
        last = bisect_left(self._paths, f"{path}0")  # the sign behind `/`
        return [path, *self._paths[first : min(last, first + MOST_BELOW)]]
