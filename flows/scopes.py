"""The heaviest items of everything, of each category, brand and country."""

import numba
import numpy as np
import numpy.typing as npt

from flows.history import FoldParams, event_weight
from flows.item_table import ItemTable
from flows.popularity import merge_scope, scores_of
from schemas.events import Columns
from state import keys
from state.decay import EPOCH_HALF_LIVES, add, epoch_of, forward_weight
from state.lane_rows import (
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
from state.store import Store

MAX_CACHED_SCOPES = 20_000


@numba.njit(cache=True)
def _count_country(
    n: int,
    items: npt.NDArray[np.uint64],
    pop: npt.NDArray[np.int64],
    epochs: npt.NDArray[np.int32],
    events: npt.NDArray[np.void],
    p: FoldParams,
) -> int:
    for i in range(len(events)):
        item, weight = events[i].item, event_weight(np.int64(events[i].kind), events[i].value, p.weights)
        at = np.searchsorted(items[:n], item)
        if at == n or items[at] != item:
            if n == MAX_COUNTRY_ITEMS:
                lightest, least = 0, np.inf
                newest = epochs[:n, 1].max()
                for j in range(n):
                    weight = pop[j, 1, 0] + pop[j, 1, 1] * 2.0**-EPOCH_HALF_LIVES
                    if epochs[j, 1] != newest:
                        weight *= 2.0 ** (EPOCH_HALF_LIVES * (epochs[j, 1] - newest))
                    if weight < least:
                        lightest, least = j, weight
                items[lightest : n - 1] = items[lightest + 1 : n].copy()
                pop[lightest : n - 1] = pop[lightest + 1 : n].copy()
                epochs[lightest : n - 1] = epochs[lightest + 1 : n].copy()
                n -= 1
                at = np.searchsorted(items[:n], item)
            items[at + 1 : n + 1] = items[at:n].copy()
            pop[at + 1 : n + 1] = pop[at:n].copy()
            epochs[at + 1 : n + 1] = epochs[at:n].copy()
            items[at], pop[at], epochs[at] = item, 0, 0
            n += 1
        for h in range(2):
            half_life = p.half_lives_ms[h]
            ts = events[i].ts_ms
            add(epochs[at], pop[at], h, epoch_of(ts, half_life), forward_weight(weight, ts, half_life))
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
        for kind, column in ((CATEGORY, items.rows.category[slots]), (BRAND, items.rows.brand[slots])):
            by_scope = np.argsort(column, kind="stable")
            scopes, starts = np.unique(column[by_scope], return_index=True)
            for scope, members in zip(scopes.tolist(), np.split(by_scope, starts[1:]), strict=True):
                if scope:
                    key = scope_hash(kind, scope)
                    self._merge(key, ids[members], short[members], long[members], self._small_limit)

    def count_countries(self, events: Columns) -> None:
        """Count the events in the lists of their countries."""
        events = events[(events["country"] != 0) & (events["item"] != 0)]
        for country in np.unique(events["country"]).tolist():
            key = scope_hash(COUNTRY, country)
            counts = self._countries.get(key)
            if counts is None:
                counts = decode_country(self._read(key))
            here = events[events["country"] == country]
            n = _count_country(counts.n, counts.item, counts.pop, counts.epoch, here, self._params)
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
