"""Which items an answer may hold: shown by the shop, past the filters and past the rules that leave items out."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.columns import Mask
from serving.expressions import ItemCondition, under
from serving.requests import Filters
from serving.rules import Acting, Include, MinMargin, MinStock, Rule

MAX_KEPT, MAX_FACTORS = 256, 32


class Heaviest(NamedTuple):
    """Items of a selection, heaviest first."""

    read_ms: int
    hashes: npt.NDArray[np.uint64]
    weights: npt.NDArray[np.float64]


class Selection:
    """Items by catalogue row; `narrow` when filters or rules leave out what the shop shows."""

    def __init__(self, mask: Mask, hashes: npt.NDArray[np.uint64], narrow: bool) -> None:
        self.mask, self._all, self.narrow = mask, hashes, narrow
        self.heaviest: Heaviest | None = None

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The id hashes of the items."""
        return self._all[self.mask]


class Selections:
    """Selections by what was asked, kept until the catalogue changes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._version = catalogue, -1
        self._kept: dict[object, Selection] = {}
        self._masks: dict[tuple[int, str], Mask] = {}
        self._factors: dict[tuple[int, tuple[str, ...]], npt.NDArray[np.float64]] = {}

    def of(self, in_stock: bool, filters: Filters | None, acting: Acting, book: int) -> Selection:
        """Return the selection; the rules are of the book with this version."""
        self._look()
        key = (in_stock, filters, book, acting.limits)
        found = self._kept.get(key)
        if found is None:
            mask = self._catalogue.shown(in_stock)
            if filters is not None:
                mask &= filter_mask(filters, self._catalogue)
            for rule in acting.limiting:
                mask &= ~self.left_out(rule, book)
            found = Selection(mask, self._catalogue.hashes(), filters is not None or bool(acting.limiting))
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = found
        return found

    def left_out(self, rule: Rule, book: int) -> Mask:
        """Return which items the rule takes out of every answer."""
        return left_out(rule, self.matching(rule, book))

    def matching(self, rule: Rule, book: int) -> Mask:
        """Return which items a rule is about."""
        self._look()
        key = (book, rule.id)
        if key not in self._masks:
            if len(self._masks) >= 4 * MAX_KEPT:
                self._masks.clear()
            self._masks[key] = rule_mask(rule, self._catalogue)
        return self._masks[key]

    def factors(self, acting: Acting, book: int) -> npt.NDArray[np.float64]:
        """Return the product of all boosts, by catalogue row."""
        self._look()
        key = (book, tuple(rule.id for rule in acting.boosts))
        if key not in self._factors:
            if len(self._factors) >= MAX_FACTORS:
                self._factors.clear()
            factors = np.ones(len(self._catalogue))
            for rule in acting.boosts:
                factors[self.matching(rule, book)] *= rule.factor
            self._factors[key] = factors
        return self._factors[key]

    def _look(self) -> None:
        if self._catalogue.version != self._version:
            self._kept.clear()
            self._factors.clear()
            self._masks.clear()
            self._version = self._catalogue.version


def left_out(rule: Rule, about: Mask) -> Mask:
    """Return which items a limiting rule takes out, given those it is about."""
    return ~about if isinstance(rule, Include) else about


def rule_mask(rule: Rule, catalogue: Catalogue) -> Mask:
    """Return the items a rule is about: those that pass its `where`, or fall short of its minimum."""
    n = len(catalogue)
    if isinstance(rule, MinStock):
        return catalogue.number("stock") < rule.least
    if isinstance(rule, MinMargin):
        return catalogue.number("margin") < rule.least
    where = getattr(rule, "where", "")
    return ItemCondition(where).mask(catalogue, n) if where else np.zeros(n, np.bool_)


def filter_mask(filters: Filters, catalogue: Catalogue) -> Mask:
    """Return the items that pass a request's filters."""
    mask = np.ones(len(catalogue), np.bool_)
    if filters.category is not None:
        column, path = catalogue.text("category"), filters.category
        mask &= np.array([bool(word) and under(word, path) for word in column.words])[column.codes]
    if filters.brands:
        column, brands = catalogue.text("brand"), set(filters.brands)
        mask &= np.array([word in brands for word in column.words])[column.codes]
    if filters.min_price is not None or filters.max_price is not None:
        price = catalogue.number("price")
        mask &= price >= (filters.min_price or 0.0)  # false for an unknown price
        if filters.max_price is not None:
            mask &= price <= filters.max_price
    if filters.country is not None:
        column, country = catalogue.text("attr.countries"), filters.country
        sold = [not word or country in [part.strip() for part in word.split(",")] for word in column.words]
        mask &= np.array(sold)[column.codes]
    if filters.where is not None:
        mask &= ItemCondition(filters.where).mask(catalogue, len(catalogue))
    return mask
