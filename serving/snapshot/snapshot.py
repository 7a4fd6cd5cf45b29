"""A server's snapshot of one generation: rows read before requests come, and rows read for them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_id, hash_ids
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.category_tree import CategoryTree
from serving.rendering.item_heads import ItemHeads
from serving.rendering.reason_cache import ReasonCache
from serving.request.budget import Budget
from serving.retrieval.new_items import NewItems
from serving.retrieval.vector_index import VectorIndex
from serving.rules.acting import Compiled
from serving.rules.item_filter import MostPopular, Selection, Selections
from serving.rules.model import Book
from serving.scoring.parameters import DEFAULT, ScoreConfig, params_from
from serving.scoring.scorer import Scored, Scorer
from serving.scoring.sessions import Sessions
from serving.scoring.tree_ensemble import NO_FOREST, forest_from
from serving.settings import ServingSettings
from serving.snapshot.item_cache import ItemCache
from serving.snapshot.scratch import Scratch
from serving.snapshot.top_lists import EMPTY_LIST, TopList, merge_top_lists
from serving.snapshot.visitor_rows import UserVectors, VisitorRead
from state.rows import keys, lane_rows
from state.rows.purchase_rows import decode_purchase_totals
from state.store.changes import ChangeFeed, NoChanges
from state.store.contract import Reading, RowReader

SLOW_AGE_MS = 5_000
"""Rows that only describe a candidate may be older than those of the session's own items."""
EXPANSION_AGE_MS = 30_000
"""Age of cached expansions: what lies two steps from an item, and how rare it is, changes slowly and matters little."""
TOP_LIST_AGE_MS = 1_000
MAX_TOP_LISTS = 1_000
FROZEN_ITEMS = 20_000
"""Item rows that a frozen shop keeps."""
READ_AHEAD = 500
"""Item rows read at once."""
MAX_COUNTED = 5_000
"""Items that pass a filter whose weights are looked up to fill an answer."""

Hashes = npt.NDArray[np.uint64]


class WithoutChanges(NamedTuple):
    """A store whose changes nobody follows."""

    store: RowReader

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys, None where there is none. Raises StoreUnavailable."""
        return self.store.read(keys)

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Send a read; return what collects its values (`RowReader.begin_read`)."""
        return self.store.begin_read(keys)

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        """Return a feed that never reports a key."""
        return NoChanges()


class ServingSnapshot:
    """Everything answers are made of, except the request. One thread uses it."""

    def __init__(
        self, store: RowReader, settings: ServingSettings, generation: str, catalogue: Catalogue | None = None
    ) -> None:
        """`catalogue`: one that is there already."""
        self.store, self.settings, self.generation = store, settings, generation
        self.prefixes = [keys.prefix(generation, lane) for lane in range(settings.n_lanes)]
        self.catalogue = catalogue or Catalogue(self.prefixes, settings.show_unknown_items)
        self._categories = CategoryTree(self.catalogue)
        self.heads, self.reasons = ItemHeads(self.catalogue), ReasonCache(self.catalogue)
        self.selections, self.scratch = Selections(self.catalogue), Scratch()
        self._feed = store.changes([keys.item_prefix(prefix) for prefix in self.prefixes])
        self.items = ItemCache(settings.server_cached_items, self.prefixes, self._feed)
        self.half_lives = (int(settings.short_half_life_s * 1000), int(settings.long_half_life_s * 1000))
        self.scorer = Scorer(DEFAULT, ScoreConfig(*self.half_lives, 120), NO_FOREST, EXPANSION_AGE_MS)
        self.totals = np.zeros(lane_rows.SIZE, np.int64)
        self.bought = decode_purchase_totals([])
        self.popular = EMPTY_LIST
        self.trending: Hashes = np.zeros(0, np.uint64)
        """Id hashes of what trends in the whole shop, ascending."""
        self.rules = Compiled(Book())
        self.index: VectorIndex | None = None
        self._top_lists: dict[int, tuple[int, TopList]] = {}
        self._lane_globals: list[bytes | None] = []
        self._n_ahead = 0
        """Items whose rows have been read ahead."""

    def frozen(self, store: RowReader, budget: Budget) -> "ServingSnapshot":
        """Return the shop as it is now, with caches of its own, for another thread to answer a few requests from."""
        most = min(self.settings.server_cached_items, FROZEN_ITEMS)
        settings = self.settings.model_copy(update={"server_cached_items": most})
        same = ServingSnapshot(WithoutChanges(store), settings, self.generation, self.catalogue.copy())
        same.selections = Selections(same.catalogue, budget)
        same.scorer = Scorer(self.scorer.params, self.scorer.config, self.scorer.forest, EXPANSION_AGE_MS)
        same.totals, same.bought, same.rules = self.totals, self.bought, self.rules.copy()
        same.popular, same.trending = self.popular, self.trending
        if self.index is not None:
            same.index = self.index.copy()
            same.items.use_anchor(same.index.anchor)
        return same

    def see_trends(self, now_ms: int) -> None:
        """Set the lists of the whole shop to those of a time. Raises StoreUnavailable."""
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
        """Apply the new items and changed products that `refresh` found, at most `most` (`Catalogue.refresh`)."""
        added = self.catalogue.refresh(self.store, self._lane_globals, most)
        if self.index is not None:
            self.index.new_items.watch(added)

    def prefetch(self, now_ms: int) -> int:
        """Read the rows of as many items as there is room for, before the first request; return how many.

        Where there are more, those with the longest factors: they are in the most lists. Raises StoreUnavailable.
        """
        self.subscribe()
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

    def subscribe(self) -> None:
        """Hear from now on which item rows are written, so that others need not be read again; may take its time."""
        self._feed.connect()

    def set_popular(self, popular: TopList) -> None:
        """Set the popular list of the whole shop, and which of its items trend."""
        self.popular = popular
        self.trending = np.sort(popular.hashes[popular.trending])

    def trends(self, item_hash: int) -> bool:
        """Return whether an item trends in the whole shop."""
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

    def _merged(self, kind: int, values: Sequence[bytes | None], now_ms: int) -> TopList:
        return merge_top_lists(kind, values, self.catalogue, self.half_lives, now_ms)

    def close(self) -> None:
        """Release what this snapshot alone uses of the store."""
        self._feed.close()

    def slots_of(self, items: Hashes, now_ms: int, max_age_ms: int = SLOW_AGE_MS) -> npt.NDArray[np.int64]:
        """Return the slots in `items.rows` of these items, their rows read where they are old."""
        self.items.slots.begin_round()
        self.items.ensure(self.store, items, now_ms, max_age_ms)
        return self.items.slots.find(items)

    def scope(self, kind: int, name: str, now_ms: int) -> TopList:
        """Return the items of a brand, a country, or a category and those below it, at most TOP_LIST_AGE_MS old.

        An item is in the row of its own category alone, so the rows of a category and of those below it add up.
        """
        if kind == lane_rows.ALL:
            return self.popular
        key = lane_rows.scope_hash(kind, hash_id(name))
        read_ms, found = self._top_lists.get(key, (0, EMPTY_LIST))
        if now_ms - read_ms > TOP_LIST_AGE_MS:
            names = self._categories.under(name) if kind == lane_rows.CATEGORY else [name]
            scopes = [lane_rows.scope_hash(kind, one) for one in hash_ids(names).tolist()]
            values = self.store.read([keys.scope(prefix, scope) for prefix in self.prefixes for scope in scopes])
            found = self._merged(kind, values, now_ms)
            if len(self._top_lists) >= MAX_TOP_LISTS:
                self._top_lists.clear()
            self._top_lists[key] = (now_ms, found)
        return found

    def siblings(self, category: str) -> list[str]:
        """Return the categories below the one that a category path lies in; none for a path of one level."""
        parent = category.rpartition("/")[0]
        return self._categories.under(parent) if parent else []

    def most_popular(self, selection: Selection, now_ms: int) -> MostPopular:
        """Return the items of a selection, the most popular of all time first; at most TOP_LIST_AGE_MS old."""
        found = selection.most_popular
        if found is None or now_ms - found.read_ms > TOP_LIST_AGE_MS:
            hashes = self.catalogue.hashes()[selection.mask]
            if len(hashes) > MAX_COUNTED:
                hashes = np.partition(hashes, MAX_COUNTED)[:MAX_COUNTED]
            hashes = np.sort(hashes)
            weights = self.items.rows["count"][self.slots_of(hashes, now_ms)]
            order = np.lexsort((hashes, -weights))
            found = selection.most_popular = MostPopular(now_ms, hashes[order], weights[order] / 100)
        return found

    def read_visitors(
        self, subjects: Sequence[int], with_purchases: Sequence[bool], with_older: Sequence[bool]
    ) -> VisitorRead:
        """Send the read of visitors' rows (`VisitorRead`), which is then under way."""
        return VisitorRead(self.store, self.prefixes, subjects, with_purchases, with_older)

    def user_vectors(self, subjects: Sequence[int]) -> UserVectors:
        """Return what reads the vectors of users by id hash for the anchor in use."""
        return UserVectors(self.store, self.prefixes, self.index.version if self.index else None, subjects)

    def text(self, item_hash: int) -> str:
        """Return an item's id, "" for one that is not known."""
        row = self.catalogue.row_of(item_hash)
        return "" if row < 0 else self.catalogue.ids[row]

    def title(self, item_hash: int, otherwise: str = "") -> str:
        """Return an item's title, or `otherwise` for one that is not known."""
        row = self.catalogue.row_of(item_hash)
        return otherwise if row < 0 else self.catalogue.titles[row]
