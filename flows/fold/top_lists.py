"""Top lists: the most popular items of the shop and of each category, brand and country."""

import numpy as np
import numpy.typing as npt

from flows.fold.event_effects import FoldParams, event_weight
from flows.fold.item_table import ItemTable
from flows.fold.popularity import merge_scope, scores_of
from schemas.compiled.distinct import distinct
from schemas.compiled.njit import njit, njit_no_refcount
from schemas.events import Columns
from state.rows import keys
from state.rows.decay import EPOCH_HALF_LIVES, add, epoch_of, forward_weight
from state.rows.lane_rows import (
    ALL,
    BRAND,
    CATEGORY,
    COUNTRY,
    MAX_COUNTRY_ITEMS,
    CountryList,
    ScopeList,
    decode_country,
    decode_scope,
    encode_country,
    encode_scope,
    scope_hash,
)
from state.store.contract import Store

MAX_CACHED_SCOPES = 20_000
Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


@njit_no_refcount()
def _fill_weights(n: int, pop: npt.NDArray[np.int64], epochs: npt.NDArray[np.int32], weights: Floats) -> int:
    """Write what each item weighs at the long half-life, in units of the newest epoch; return that epoch; `n` > 0."""
    newest = epochs[0, 1]
    for j in range(1, n):
        newest = max(newest, epochs[j, 1])
    for j in range(n):
        weights[j] = pop[j, 1, 0] + pop[j, 1, 1] * 2.0**-EPOCH_HALF_LIVES
        if epochs[j, 1] != newest:
            weights[j] *= 2.0 ** (EPOCH_HALF_LIVES * (epochs[j, 1] - newest))
    return newest  # type: ignore[no-any-return]


@njit_no_refcount()
def _make_room(
    n: int, at: int, cut: int, items: Ids, pop: npt.NDArray[np.int64], epochs: npt.NDArray[np.int32], weights: Floats
) -> int:
    """Free a place for what belongs before entry `at`, giving up entry `cut`; return the place."""
    step = 1 if cut < at else -1
    last = at - 1 if cut < at else at
    for j in range(cut, last, step):
        items[j], weights[j] = items[j + step], weights[j + step]
        for h in range(2):
            epochs[j, h] = epochs[j + step, h]
            pop[j, h, 0], pop[j, h, 1] = pop[j + step, h, 0], pop[j + step, h, 1]
    items[last], weights[last], pop[last], epochs[last] = 0, 0.0, 0, 0
    return last


@njit()
def _count_country(
    n: int,
    items: Ids,
    pop: npt.NDArray[np.int64],
    epochs: npt.NDArray[np.int32],
    events: npt.NDArray[np.void],
    p: FoldParams,
) -> int:
    weights = np.zeros(MAX_COUNTRY_ITEMS, np.float64)
    newest = _fill_weights(n, pop, epochs, weights) if n else 0
    for i in range(len(events)):
        item = events[i].item
        at = np.searchsorted(items[:n], item)
        if at == n or items[at] != item:
            cut = n
            if n == MAX_COUNTRY_ITEMS:
                cut = np.argmin(weights)  # type: ignore[assignment]
            else:
                n += 1
            at = _make_room(n, at, cut, items, pop, epochs, weights)
            items[at] = item
        weight = event_weight(np.int64(events[i].kind), events[i].value, p.weights)  # type: ignore[arg-type]
        for h in range(2):
            half_life = p.half_lives_ms[h]
            ts = events[i].ts_ms
            add(epochs[at], pop[at], h, epoch_of(ts, half_life), forward_weight(weight, ts, half_life))
        if epochs[at, 1] > newest:
            newest = _fill_weights(n, pop, epochs, weights)
        else:
            weights[at] = pop[at, 1, 0] + pop[at, 1, 1] * 2.0**-EPOCH_HALF_LIVES
            if epochs[at, 1] != newest:
                weights[at] *= 2.0 ** (EPOCH_HALF_LIVES * (epochs[at, 1] - newest))
    return n


class ScopeFold:
    """Keeps scope lists and country lists, and puts those a batch changed into its rows."""

    def __init__(self, store: Store, lane_prefix: bytes, params: FoldParams, limit: int, small_limit: int) -> None:
        self._store, self._prefix, self._params = store, lane_prefix, params
        self._limit, self._small_limit = limit, small_limit
        self._scopes: dict[int, ScopeList] = {}
        self._countries: dict[int, CountryList] = {}
        self._changed: dict[int, bytes] = {}

    def clear(self) -> None:
        """Empty the cache."""
        self._scopes.clear()
        self._countries.clear()
        self._changed.clear()

    def fold(self, items: ItemTable, rows: dict[bytes, bytes | None]) -> None:
        """Merge the scores of the items this batch counted into their scopes."""
        slots = items.counted()
        if len(slots):
            self._merge_all(slots, items)
        for key, value in self._changed.items():
            rows[keys.scope(self._prefix, key)] = value
        self._changed.clear()

    def _merge_all(self, slots: npt.NDArray[np.int64], items: ItemTable) -> None:
        ids = items.ids_of(slots)
        order = np.argsort(ids)
        slots, ids = slots[order], ids[order]
        short, long = scores_of(items.rows, slots, self._params.half_lives_ms)
        self._merge(scope_hash(ALL, 0), ids, short, long, self._limit)
        for kind, column in ((CATEGORY, items.rows["category"][slots]), (BRAND, items.rows["brand"][slots])):
            by_scope = np.argsort(column, kind="stable")
            scopes, starts = np.unique(column[by_scope], return_index=True)
            for scope, members in zip(scopes.tolist(), np.split(by_scope, starts[1:]), strict=True):
                if scope:
                    key = scope_hash(kind, scope)
                    self._merge(key, ids[members], short[members], long[members], self._small_limit)

    def count_countries(self, events: Columns) -> None:
        """Count the events in the lists of their countries."""
        placed = (events["country"] != 0) & (events["item"] != 0)
        for country in distinct(events["country"][placed]).tolist():
            key = scope_hash(COUNTRY, country)
            counts = self._countries.get(key)
            if counts is None:
                counts = decode_country(self._read(key))
            here = placed & (events["country"] == country)
            n = _count_country(
                counts.n, counts.item, counts.pop, counts.epoch, events if here.all() else events[here], self._params
            )
            self._countries[key] = counts._replace(n=n)
            self._changed[key] = encode_country(self._countries[key])

    def move(self, item: int, old_category: int, category: int, old_brand: int, brand: int) -> None:
        """Take an item out of the lists of the category and brand it no longer has.

        It enters the lists of its new ones with its next event.
        """
        for kind, old, new in ((CATEGORY, old_category, category), (BRAND, old_brand, brand)):
            if old and old != new:
                key = scope_hash(kind, old)
                scope = self._scope(key)
                stay = scope.item != item
                if not stay.all():
                    self._put(key, ScopeList(scope.item[stay], scope.short[stay], scope.long[stay]))

    def _merge(
        self,
        key: int,
        ids: npt.NDArray[np.uint64],
        short: npt.NDArray[np.float32],
        long: npt.NDArray[np.float32],
        limit: int,
    ) -> None:
        self._put(key, ScopeList(*merge_scope(*self._scope(key), ids, short, long, limit)))

    def _put(self, key: int, scope: ScopeList) -> None:
        # Least recently written first, so that a list whose commit is under way stays cached.
        self._scopes.pop(key, None)
        self._scopes[key] = scope
        if len(self._scopes) > MAX_CACHED_SCOPES:
            del self._scopes[next(iter(self._scopes))]
        self._changed[key] = encode_scope(scope)

    def _scope(self, key: int) -> ScopeList:
        return self._scopes[key] if key in self._scopes else decode_scope(self._read(key))

    def _read(self, key: int) -> bytes | None:
        return self._store.read([keys.scope(self._prefix, key)])[0]
