"""Which items an answer may hold: those on sale that pass the filters and the limiting rules.

Stocks and prices change all the time. Therefore masks are not computed anew: only the entries of changed items are.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.catalogue.catalogue import Catalogue, Rows
from serving.request.budget import UNBOUNDED, Budget
from serving.request.columns import Mask, grown
from serving.request.condition_compiler import under
from serving.request.conditions import ItemCondition
from serving.request.requests import Filters
from serving.rules.acting import Acting, Compiled, RuleFailed
from serving.rules.model import Include, MinMargin, MinStock, Rule

MAX_KEPT, MAX_FACTORS = 256, 32
LEAST_FACTOR, MOST_FACTOR = 1e-100, 1e100
"""Of all boosts together: scores times it stay numbers."""
KEPT_BYTES = 128 << 20
"""Of selections: with many items fewer are kept."""

Values = npt.NDArray[Any]
ValuesOf = Callable[["Part"], Values]


class Part(NamedTuple):
    """Some rows of a catalogue, or all of them (None), as conditions see them."""

    catalogue: Catalogue
    rows: Rows | None = None

    def size(self) -> int:
        """Return how many rows there are."""
        return len(self.catalogue) if self.rows is None else len(self.rows)

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Return a numeric field of the rows, NaN where it is not known."""
        return self.catalogue.number(name, self.rows)

    def text(self, name: str) -> Any:
        """Return a text field of the rows."""
        return self.catalogue.text(name, self.rows)

    def of(self, values: Values) -> Values:
        """Return the values of these rows out of those of all."""
        return values if self.rows is None else values[self.rows]


class Followed:
    """A value for each item of a catalogue, computed again where the catalogue changes."""

    def __init__(self, catalogue: Catalogue, values_of: ValuesOf) -> None:
        self._catalogue, self._values_of, self._version = catalogue, values_of, -1
        self._values: Values = np.zeros(0)

    def now(self) -> Values:
        """Return the values, by catalogue row."""
        catalogue, n = self._catalogue, len(self._catalogue)
        if self._version != catalogue.version:
            rows = catalogue.changed_since(self._version)
            if rows is None:
                self._values = np.array(self._values_of(Part(catalogue)))
            else:
                if n > len(self._values):
                    self._values = grown(self._values, 2 * n)
                self._values[rows] = self._values_of(Part(catalogue, rows))
            self._version = catalogue.version
        return self._values[:n]


class MostPopular(NamedTuple):
    """Items of a selection, the most popular of all time first; `weights`: their event weight."""

    read_ms: int
    hashes: npt.NDArray[np.uint64]
    weights: npt.NDArray[np.float64]


class Selection:
    """Items by catalogue row; `narrow` when filters or rules leave out what the shop shows."""

    def __init__(self, catalogue: Catalogue, passing: Followed, narrow: bool) -> None:
        self.catalogue, self._passing, self.narrow = catalogue, passing, narrow
        self.most_popular: MostPopular | None = None

    @property
    def mask(self) -> Mask:
        """Which items pass now."""
        return self._passing.now()

    def last(self, n: int) -> Rows:
        """Return the rows of the `n` items that came last, the newest first."""
        mask, looked_at, rows = self.mask, n, np.zeros(0, np.int64)
        first = len(mask)
        while len(rows) < n and first > 0:
            looked_at *= 4  # most pass, so that the end of a long catalogue is enough
            first = max(0, len(mask) - looked_at)
            rows = first + np.flatnonzero(mask[first:])[::-1]
        return rows[:n]


class Selections:
    """Selections by the request's filters and stock setting."""

    def __init__(self, catalogue: Catalogue, budget: Budget = UNBOUNDED) -> None:
        """`budget`: what evaluating conditions may take."""
        self._catalogue, self._budget = catalogue, budget
        self._kept: dict[object, Selection] = {}
        self._matching: dict[tuple[int, str], Followed] = {}
        self._factors: dict[tuple[int, tuple[str, ...]], Followed] = {}

    def of(self, in_stock: bool, filters: Filters | None, acting: Acting, book: int) -> Selection:
        """Return the selection; the rules are of the book with this version."""
        key = (in_stock, filters, book, acting.limits)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= min(MAX_KEPT, 1 + KEPT_BYTES // max(1, len(self._catalogue))):
                self._kept.pop(next(iter(self._kept)))

            def passing(part: Part) -> Mask:
                mask = self._catalogue.shown(in_stock, part.rows)
                if filters is not None:
                    mask &= filter_mask(filters, part)
                for rule in acting.limiting:
                    mask &= ~hidden(rule, part.of(self.matching(rule, book)))
                return mask

            narrow = filters is not None or bool(acting.limiting)
            found = self._kept[key] = Selection(self._catalogue, Followed(self._catalogue, passing), narrow)
        return found

    def hidden_by(self, rule: Rule, book: int) -> Mask:
        """Return which items the rule takes out of every answer."""
        return hidden(rule, self.matching(rule, book))

    def matching(self, rule: Rule, book: int) -> Mask:
        """Return which items a rule is about. Raises RuleFailed."""
        key = (book, rule.id)
        found = self._matching.get(key)
        self._budget.spend(len(self._catalogue) if found is None else 0)
        if found is None:
            if len(self._matching) >= 4 * MAX_KEPT:
                self._matching.clear()
            found = self._matching[key] = Followed(self._catalogue, lambda part: rule_mask(rule, part))
        try:
            return found.now()
        except (MemoryError, RecursionError):  # no fault of the rule
            raise
        except Exception as error:
            raise RuleFailed(rule.id, error) from error

    def failing(self, rules: Iterable[Rule], book: int) -> list[RuleFailed]:
        """Return which of the rules cannot be evaluated."""
        found = []
        for rule in rules:
            try:
                self.matching(rule, book)
            except RuleFailed as failed:
                found.append(failed)
        return found

    def skip_failing(self, rules: Compiled, failed: RuleFailed) -> None:
        """Switch off a rule that could not be evaluated, and others that would fail next."""
        others = self.failing(rules.acting_rules, rules.version)
        rules.leave_out([failed, *(other for other in others if other.rule != failed.rule)])

    def factors(self, acting: Acting, book: int) -> npt.NDArray[np.float64]:
        """Return the product of all boosts, by catalogue row."""
        key = (book, tuple(rule.id for rule in acting.boosts))
        found = self._factors.get(key)
        if found is None:
            if len(self._factors) >= MAX_FACTORS:
                self._factors.clear()

            def product(part: Part) -> npt.NDArray[np.float64]:
                factors = np.ones(part.size())
                for rule in acting.boosts:
                    about = part.of(self.matching(rule, book))
                    factors[about] = np.clip(factors[about] * rule.factor, LEAST_FACTOR, MOST_FACTOR)
                return factors

            found = self._factors[key] = Followed(self._catalogue, product)
        return found.now()


def hidden(rule: Rule, about: Mask) -> Mask:
    """Return which items a limiting rule takes out, given those it is about."""
    return ~about if isinstance(rule, Include) else about


def rule_mask(rule: Rule, part: Part) -> Mask:
    """Return the items a rule is about: those that pass its `where`, or fall short of its minimum."""
    if isinstance(rule, MinStock):
        return part.number("stock") < rule.least
    if isinstance(rule, MinMargin):
        return part.number("margin") < rule.least
    where = getattr(rule, "where", "")
    return ItemCondition(where).mask(part, part.size()) if where else np.zeros(part.size(), np.bool_)


def filter_mask(filters: Filters, part: Part) -> Mask:
    """Return the items that pass a request's filters."""
    mask = np.ones(part.size(), np.bool_)
    if filters.category is not None:
        column, path = part.text("category"), filters.category
        mask &= np.array([bool(word) and under(word, path) for word in column.words], np.bool_)[column.codes]
    if filters.brands:
        column, brands = part.text("brand"), set(filters.brands)
        mask &= np.array([word in brands for word in column.words], np.bool_)[column.codes]
    if filters.min_price is not None or filters.max_price is not None:
        price = part.number("price")
        mask &= price >= (filters.min_price or 0.0)  # false for an unknown price
        if filters.max_price is not None:
            mask &= price <= filters.max_price
    if filters.country is not None:
        column, country = part.text("attr.countries"), filters.country
        sold = [not word or country in [name.strip() for name in word.split(",")] for word in column.words]
        mask &= np.array(sold, np.bool_)[column.codes]
    if filters.where is not None:
        mask &= ItemCondition(filters.where).mask(part, part.size())
    return mask
