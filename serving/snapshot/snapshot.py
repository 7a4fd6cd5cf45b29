"""What a server knows of one generation's shop: rows read ahead of requests, and rows read for them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from serving.rendering.items import Heads
from serving.rendering.reason_cache import ReasonCache
from serving.request.trials import Budget
from serving.retrieval.new_items import NewItems
from serving.retrieval.vector_index import VectorIndex
from serving.rules.item_filter import Heaviest, Selection, Selections
from serving.rules.model import Book, Compiled
from serving.scoring.parameters import DEFAULT, ScoreConfig, params_from
from serving.scoring.scorer import Scored, Scorer
from serving.scoring.sessions import Sessions
from serving.scoring.tree_ensemble import NO_FOREST, forest_from
from serving.settings import ServingSettings
from serving.snapshot.item_cache import ItemCache
from serving.snapshot.scratch import Scratch
from state.rows import keys, lane_rows
from state.rows.decay import NO_SCORE, REFERENCE_MS
from state.rows.purchase_rows import (
    PurchaseRows,
    decode_older,
    decode_purchase_totals,
    decode_purchases,
    empty_purchases,
)
from state.rows.refusal_rows import refused_items
from state.rows.user_rows import UserRows, decode_users, empty_users
from state.rows.vector_rows import decode_vector
from state.store.changes import ChangeFeed, NoChanges
from state.store.contract import Reading, RowReader

SLOW_AGE_MS = 5_000
"""Rows that only describe a candidate may be older than those of the session's own items."""
EXPANSION_AGE_MS = 30_000
"""What lies two steps from an item, and how rare each item is, changes slowly and says little of each item."""
TRENDING = 1.5
SCOPE_AGE_MS = 1_000
MAX_SCOPES = 1_000
FROZEN_ITEMS = 20_000
"""Item rows that a frozen shop keeps."""
READ_AHEAD = 500
"""Item rows read at once."""
MAX_COUNTED = 5_000
"""Items that pass a filter whose weights are looked up to fill an answer."""

Hashes = npt.NDArray[np.uint64]
NO_HASHES: Hashes = np.zeros(0, np.uint64)
Floats = npt.NDArray[np.float64]


class ScopeItems(NamedTuple):
    """A scope's items, heaviest at the long half-life first."""

    hashes: Hashes
    weight: Floats  # log2 of the decayed weight
    trend: Floats  # log2 of short over long half-life, relative to a steady rate

    @property
    def trending(self) -> npt.NDArray[np.bool_]:
        """Whether the short half-life says that an item sells TRENDING times what the long one says."""
        return self.trend > math.log2(TRENDING)


NO_ITEMS = ScopeItems(np.zeros(0, np.uint64), np.zeros(0), np.zeros(0))


class Visited(NamedTuple):
    """Rows of those who ask, by place in their batch."""

    users: UserRows
    purchases: PurchaseRows | None
    """None where nobody has bought anything."""
    refused: dict[int, Hashes]
    """What they refuse, of those who do."""
    older: dict[int, Hashes]
    """What else they bought, of whom that was asked and who bought more than `purchases` has room for."""

    def refused_by(self, place: int) -> Hashes:
        return self.refused.get(place, NO_HASHES) if self.refused else NO_HASHES

    def bought_by(self, place: int) -> Hashes:
        if self.purchases is None:
            return NO_HASHES
        bought = self.purchases.item[place, : self.purchases.n[place]]
        return np.concatenate((bought, self.older[place])) if place in self.older else bought


class Unheard(NamedTuple):
    """A store whose changes nobody follows."""

    store: RowReader

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.store.read(keys)

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        return self.store.begin_read(keys)

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        return NoChanges()


class ServingSnapshot:
    """Everything answers are made of, except the request. One thread uses it."""

    def __init__(
        self, store: RowReader, settings: ServingSettings, generation: str, catalogue: Catalogue | None = None
    ) -> None:
        """`catalogue`: one that is there already."""
        self.store, self.settings, self.generation = store, settings, generation
        self.prefixes = [keys.prefix(generation, lane) for lane in range(settings.n_lanes)]
        self.catalogue = catalogue or Catalogue(self.prefixes)
        self.heads, self.phrases = Heads(self.catalogue), ReasonCache(self.catalogue)
        self.selections, self.scratch = Selections(self.catalogue), Scratch()
        self._feed = store.changes([keys.item_prefix(prefix) for prefix in self.prefixes])
        self.items = ItemCache(settings.server_cached_items, self.prefixes, self._feed)
        self.half_lives = (int(settings.short_half_life_s * 1000), int(settings.long_half_life_s * 1000))
        self.scorer = Scorer(DEFAULT, ScoreConfig(*self.half_lives, 120), NO_FOREST, EXPANSION_AGE_MS)
        self.totals = np.zeros(lane_rows.SIZE, np.int64)
        self.bought = decode_purchase_totals([])
        self.popular = NO_ITEMS
        self.trending: Hashes = np.zeros(0, np.uint64)
        """Id hashes of what trends in the whole shop, ascending."""
        self.rules = Compiled(Book())
        self.index: VectorIndex | None = None
        self._scopes: dict[int, tuple[int, ScopeItems]] = {}
        self._lane_globals: list[bytes | None] = []
        self._n_ahead = 0
        """Items whose rows have been read ahead."""

    def frozen(self, store: RowReader, budget: Budget) -> "ServingSnapshot":
        """Return the shop as it is now, with caches of its own, for another thread to answer a few requests from."""
        most = min(self.settings.server_cached_items, FROZEN_ITEMS)
        settings = self.settings.model_copy(update={"server_cached_items": most})
        same = ServingSnapshot(Unheard(store), settings, self.generation, self.catalogue.copy())
        same.selections = Selections(same.catalogue, budget)
        same.scorer = Scorer(self.scorer.params, self.scorer.config, self.scorer.forest, EXPANSION_AGE_MS)
        same.totals, same.bought, same.rules = self.totals, self.bought, self.rules.copy()
        same.popular, same.trending = self.popular, self.trending
        if self.index is not None:
            same.index = self.index.copy()
            same.items.use_anchor(same.index.anchor)
        return same

    def see_trends(self, now_ms: int) -> None:
        """Have the lists of the whole shop as they are to be seen at a time. Raises StoreUnavailable."""
        key = lane_rows.scope_hash(lane_rows.ALL, 0)
        values = self.store.read([keys.scope(prefix, key) for prefix in self.prefixes])
        self.set_popular(self._merged(lane_rows.ALL, values, now_ms))

    def set_index(self, index: VectorIndex) -> None:
        """Answer from this anchor from now on."""
        index.new_items.watch(self.catalogue.hashes())
        self.items.use_anchor(index.anchor)
        trees = index.anchor.trees if self.settings.ranker == "auto" else None
        params, forest = params_from(index.anchor.mixture), forest_from(trees)
        self.scorer = Scorer(params, self.scorer.config, forest, EXPANSION_AGE_MS)
        self.index = index

    def refresh(self, now_ms: int, most: int | None = None) -> None:
        """Follow the rows that are read ahead of requests: catalogue, totals, the list of everything.

        `most`: changes of the catalogue to take over (`Catalogue.refresh`).
        """
        self.items.follow(now_ms)
        n, key = len(self.prefixes), lane_rows.scope_hash(lane_rows.ALL, 0)
        wanted = [keys.lane_globals(prefix) for prefix in self.prefixes]
        wanted += [keys.purchase_totals(prefix) for prefix in self.prefixes]
        wanted += [keys.scope(prefix, key) for prefix in self.prefixes]
        values = self.store.read(wanted)
        self._lane_globals = values[:n]
        self.apply_changes(most)
        if self.index is not None:
            self._renew_new_items(self.index.new_items, now_ms)
        self.totals = lane_rows.sum_globals(values[:n])
        self.bought = decode_purchase_totals(values[n : 2 * n])
        self.set_popular(self._merged(lane_rows.ALL, values[2 * n :], now_ms))

    def apply_changes(self, most: int | None) -> None:
        """Take over what `refresh` heard of new items and changed products (`Catalogue.refresh`)."""
        added = self.catalogue.refresh(self.store, self._lane_globals, most)
        if self.index is not None:
            self.index.new_items.watch(added)

    def prefetch(self, now_ms: int) -> int:
        """Have the rows of as many items as there is room for before anybody asks; return how many.

        Where there are more, those with the longest factors: they are in the most lists. Raises StoreUnavailable.
        """
        self.hear_changes()
        self.items.follow(now_ms)
        room = len(self.items.rows)
        if self.index is not None and len(self.catalogue) > room:
            likely = self.index.longest(room)
            for first in range(0, len(likely), READ_AHEAD):
                self.slots_of(likely[first : first + READ_AHEAD], now_ms)
            self._n_ahead = room
        while self._n_ahead < min(len(self.catalogue), room):
            self.scan_more(READ_AHEAD, now_ms)
        return self._n_ahead

    def scan_more(self, n: int, now_ms: int) -> int:
        """Read `n` rows ahead: of items that are new here, else of items whose rows are stale; return how many."""
        room = len(self.items.rows)
        new = self.catalogue.hashes()[self._n_ahead : room][:n]
        items = new if len(new) else self.items.stale(n, now_ms - SLOW_AGE_MS)
        self.slots_of(items, now_ms)
        self._n_ahead += len(new)
        return len(items)

    def hear_changes(self) -> None:
        """Hear from now on which item rows are written, so that others need not be read again; may take its time."""
        self._feed.connect()

    def set_popular(self, popular: ScopeItems) -> None:
        self.popular = popular
        self.trending = np.sort(popular.hashes[popular.trending])

    def trends(self, item_hash: int) -> bool:
        """Say whether an item trends in the whole shop."""
        return bool((self.trending == np.uint64(item_hash)).any())

    def _renew_new_items(self, new_items: NewItems, now_ms: int) -> None:
        due = new_items.due()
        if len(due):
            self.items.slots.begin_round()
            self.items.ensure(self.store, due, now_ms, SLOW_AGE_MS)
            new_items.renew(due, self.items.rows, self.items.slots)

    def score(
        self, sessions: Sessions, modes: npt.NDArray[np.int64] | int, now_ms: int, by_trees: bool = True
    ) -> Scored:
        """Return the mixture's candidates for sessions, by modes (`Scorer.score`); in the order of trees, if any."""
        rows, slots = self.items.rows, self.items.slots
        slots.begin_round()
        self.items.follow(now_ms)
        seeds = sessions.items()
        self.items.ensure(self.store, seeds, now_ms, self.settings.item_ttl_ms)
        self.items.ensure_near(self.store, seeds, now_ms, SLOW_AGE_MS)
        embedding, read_in = self.items.embedding, self.items.read_in
        scored = self.scorer.score(sessions, rows, slots, self.totals, now_ms, modes, embedding, by_trees, read_in)
        if scored.unread.any():  # second-order candidates: their own rows decide too
            self.items.ensure(self.store, scored.item[scored.item != 0], now_ms, SLOW_AGE_MS)
            again = np.flatnonzero(scored.unread)
            better = self.scorer.score(
                Sessions(sessions.item[again], sessions.n[again]), rows, slots, self.totals, now_ms,
                np.full(len(sessions.n), modes)[again], embedding, by_trees, read_in,
            )  # fmt: skip
            for column, of_these in zip(scored, better, strict=True):
                column[again] = of_these
        return scored

    def close(self) -> None:
        """Let go of what the shop alone uses of the store."""
        self._feed.close()

    def slots_of(self, items: Hashes, now_ms: int, max_age_ms: int = SLOW_AGE_MS) -> npt.NDArray[np.int64]:
        """Return the slots in `items.rows` of these items, their rows read where they are old."""
        self.items.slots.begin_round()
        self.items.ensure(self.store, items, now_ms, max_age_ms)
        return self.items.slots.find(items)

    def scope(self, kind: int, name: str, now_ms: int) -> ScopeItems:
        """Return the items of a category, brand or country, at most SCOPE_AGE_MS old."""
        if kind == lane_rows.ALL:
            return self.popular
        key = lane_rows.scope_hash(kind, hash_id(name))
        read_ms, found = self._scopes.get(key, (0, NO_ITEMS))
        if now_ms - read_ms > SCOPE_AGE_MS:
            values = self.store.read([keys.scope(prefix, key) for prefix in self.prefixes])
            found = self._merged(kind, values, now_ms)
            if len(self._scopes) >= MAX_SCOPES:
                self._scopes.clear()
            self._scopes[key] = (now_ms, found)
        return found

    def heaviest(self, selection: Selection, now_ms: int) -> Heaviest:
        """Return items that pass a selection by what they ever weighed, heaviest first; at most SCOPE_AGE_MS old."""
        found = selection.heaviest
        if found is None or now_ms - found.read_ms > SCOPE_AGE_MS:
            hashes = self.catalogue.hashes()[selection.mask]
            if len(hashes) > MAX_COUNTED:
                hashes = np.partition(hashes, MAX_COUNTED)[:MAX_COUNTED]
            hashes = np.sort(hashes)
            weights = self.items.rows["count"][self.slots_of(hashes, now_ms)]
            order = np.lexsort((hashes, -weights))
            found = selection.heaviest = Heaviest(now_ms, hashes[order], weights[order] / 100)
        return found

    def _merged(self, kind: int, values: Sequence[bytes | None], now_ms: int) -> ScopeItems:
        """Return a scope and its trends at a time, given its rows of all lanes.

        At a steady rate a decayed sum grows with its half-life.
        """
        parts = []
        for value in values:
            if kind == lane_rows.COUNTRY:
                parts.append(lane_rows.country_scope(lane_rows.decode_country(value), self.half_lives))
            else:
                parts.append(lane_rows.decode_scope(value))
        item, at = np.unique(np.concatenate([part.item for part in parts]), return_inverse=True)
        if not len(item):
            return NO_ITEMS
        short, long = np.full((2, len(item)), NO_SCORE)
        np.logaddexp2.at(short, at, np.concatenate([part.short for part in parts]))
        np.logaddexp2.at(long, at, np.concatenate([part.long for part in parts]))
        texts = [self.catalogue.ids[row] if row >= 0 else "" for row in self.catalogue.rows_of(item).tolist()]
        order = np.array(sorted(range(len(item)), key=list(zip((-long).tolist(), texts, strict=True)).__getitem__))
        item, short, long = item[order], short[order], long[order]
        age_ms, (short_ms, long_ms) = now_ms - REFERENCE_MS, self.half_lives
        steady = math.log2(short_ms / long_ms) + age_ms / short_ms - age_ms / long_ms
        return ScopeItems(item, long, short - long - steady)

    def begin_visitors(
        self, subjects: Sequence[int], with_purchases: Sequence[bool], with_older: Sequence[bool]
    ) -> Callable[[], Visited]:
        """Ask for the rows of users by id hash, 0 is nobody, and of some of them what they bought; call what comes.

        `with_older`: of some of these all that they bought, however much that is.
        """
        somebody = [i for i, subject in enumerate(subjects) if subject]
        buyers = [i for i in somebody if with_purchases[i]]
        prefixes = {i: self.prefixes[subjects[i] % len(self.prefixes)] for i in somebody}
        wanted = [keys.user(prefixes[i], subjects[i]) for i in somebody]
        wanted += [keys.refusals(prefixes[i], subjects[i]) for i in somebody]
        wanted += [keys.purchases(prefixes[i], subjects[i]) for i in buyers]
        of_all = [i for i in buyers if with_older[i]]
        wanted += [keys.older_purchases(prefixes[i], subjects[i]) for i in of_all]
        reading = self.store.begin_read(wanted)

        def read() -> Visited:
            values, n = reading(), len(somebody)
            users, purchases = empty_users(len(subjects)), None
            decode_users(values[:n], np.array(somebody, np.int64), users)
            end = 2 * n + len(buyers)
            if any(values[2 * n : end]):
                purchases = empty_purchases(len(subjects))
                decode_purchases(values[2 * n : end], np.array(buyers, np.int64), purchases)
            refusals, older = zip(somebody, values[n : 2 * n], strict=True), zip(of_all, values[end:], strict=True)
            return Visited(
                users, purchases, {i: refused_items(value) for i, value in refusals if value},
                {i: decode_older(value) for i, value in older if value},
            )  # fmt: skip

        return read

    def text(self, item_hash: int) -> str:
        """Return an item's id, "" for one that is not known."""
        row = self.catalogue.row_of(item_hash)
        return "" if row < 0 else self.catalogue.ids[row]

    def title(self, item_hash: int, otherwise: str = "") -> str:
        row = self.catalogue.row_of(item_hash)
        return otherwise if row < 0 else self.catalogue.titles[row]


class Vectors:
    """Users' vectors for the anchor in use, by place in the batch; read together, or later when one is asked for."""

    def __init__(self, shop: ServingSnapshot, subjects: Sequence[int]) -> None:
        self._shop, self._subjects = shop, subjects
        self._read: dict[int, npt.NDArray[np.float32] | None] = {}

    def read(self, places: Sequence[int]) -> None:
        """Read the vectors at these places of the batch."""
        shop = self._shop
        asked = [i for i in places if self._subjects[i]]
        if shop.index is None or not asked:
            return
        prefixes = [shop.prefixes[self._subjects[i] % len(shop.prefixes)] for i in asked]
        wanted = [
            keys.vector(prefix, shop.index.version, self._subjects[i])
            for prefix, i in zip(prefixes, asked, strict=True)
        ]
        for i, value in zip(asked, shop.store.read(wanted), strict=True):
            self._read[i] = decode_vector(value) if value else None

    def of(self, place: int) -> npt.NDArray[np.float32] | None:
        """Return a vector, None where there is none."""
        if place not in self._read:
            self._read[place] = None
            self.read([place])
        return self._read[place]
