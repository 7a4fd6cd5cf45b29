"""One shard of the fold: events in, absolute rows and positions out.

`apply` is deterministic: the rows it returns are a function of the rows at the
lane's positions and of the events behind them, however they were cut into
batches. Its memory is a bounded write-through cache of rows; `open` drops it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flows.dedupe import DedupeWindow
from flows.foldin import vectors_for
from flows.history import FoldParams, fold_events
from flows.item_table import ItemTable
from flows.log import RawBatch
from flows.products import ProductFold
from flows.scopes import ScopeFold
from flows.user_table import UserTable
from schemas.events import Columns, Decoded, Kind
from schemas.ids import hash_id
from state import keys
from state.anchor import Anchor
from state.item_rows import ItemRows
from state.lane_rows import DEDUPE, DUPLICATES, LATE, MAX_TS, decode_globals, encode_globals
from state.row_block import RowBlock, RowSet
from state.slot_map import SlotMap
from state.store import Positions, Store
from state.vector_rows import pack_vectors

DEFAULT_WEIGHTS: dict[Kind, float] = {
    Kind.VIEW: 1.0,
    Kind.CLICK: 1.0,
    Kind.ADD_TO_CART: 3.0,
    Kind.WISHLIST: 2.0,
    Kind.PURCHASE: 5.0,
    Kind.RATING: 1.0,
    Kind.SHARE: 2.0,
    Kind.REMOVE_FROM_CART: -3.0,
    Kind.RETURN: -5.0,
    Kind.DISLIKE: -3.0,
}


@dataclass(frozen=True)
class LaneSettings:
    """What a fold depends on; two lanes with equal settings make equal rows."""

    n_lanes: int = 1
    session_gap_ms: int = 30 * 60_000
    lateness_ms: int = 10 * 60_000
    pair_window: int = 3
    neighbours: int = 50
    short_half_life_ms: int = 86_400_000
    long_half_life_ms: int = 7 * 86_400_000
    affinity_half_life_ms: int = 7 * 86_400_000
    scope_limit: int = 200
    small_scope_limit: int = 50
    dedupe_window: int = 1 << 20
    max_cached_users: int = 1_000_000
    max_cached_items: int = 300_000
    weights: dict[Kind, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))

    def fold_params(self) -> FoldParams:
        by_kind = np.zeros(32, np.float64)
        for kind, weight in self.weights.items():
            by_kind[kind] = weight
        return FoldParams(
            self.session_gap_ms,
            self.lateness_ms,
            self.pair_window,
            self.neighbours,
            np.array([self.short_half_life_ms, self.long_half_life_ms], np.int64),
            self.affinity_half_life_ms,
            by_kind,
        )


@dataclass(frozen=True)
class FoldStats:
    """What became of a batch, in interaction rows (order lines count one each)."""

    n_events: int = 0
    n_duplicates: int = 0
    n_late: int = 0
    n_products: int = 0
    n_rows: int = 0
    cache: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rows (found, read from the store) by table."""


@dataclass(frozen=True)
class Changes:
    """Absolute rows that belong to `new` positions; commit them against `expected`."""

    expected: Positions
    new: Positions
    rows: RowSet
    stats: FoldStats = FoldStats()


class Lane:
    """Folds the events of the users with `user hash mod n_lanes == lane`."""

    def __init__(self, settings: LaneSettings, store: Store, generation: str, lane: int = 0) -> None:
        self.settings, self.lane = settings, lane
        self.prefix = keys.prefix(generation, lane)
        self._store = store
        self._params = settings.fold_params()
        self._users = UserTable(settings.max_cached_users, store, self.prefix)
        self._items = ItemTable(settings.max_cached_items, store, self.prefix)
        self._scopes = ScopeFold(store, self.prefix, self._params, settings.scope_limit, settings.small_scope_limit)
        self._products = ProductFold(store, self.prefix)
        self._dedupe = DedupeWindow(settings.dedupe_window)
        self._totals = decode_globals(None)
        self._anchors: tuple[Anchor, ...] = ()
        self._pool = ThreadPoolExecutor(1, "fold-in")  # half of the vectors, beside the lists and the encoding
        self.positions: Positions = {}

    def open(self) -> Positions:
        """Become the lane as it was committed: drop all memory, return the positions to read from."""
        self.positions = self._store.positions(self.prefix)
        self._totals = decode_globals(self._store.read([keys.lane_globals(self.prefix)])[0])
        self._users.clear()
        self._items.clear()
        self._scopes.clear()
        self._products.open(self._totals)
        count = int(self._totals[DEDUPE])
        segments = [keys.dedupe(self.prefix, segment) for segment in self._dedupe.segments_of(count)]
        self._dedupe.restore(count, self._store.read(segments) if segments else [])
        return dict(self.positions)

    @property
    def newest_ms(self) -> int:
        """Newest event time folded."""
        return int(self._totals[MAX_TS])

    def cached_rows(self) -> tuple[ItemRows, SlotMap, npt.NDArray[np.int64]]:
        """Return the live item rows, their slots and the totals, for evaluation in the same process."""
        return self._items.rows, self._items.slots, self._totals

    def use_anchors(self, *anchors: Anchor) -> None:
        """Keep user vectors for these anchors (the live one, and the one being refolded)."""
        self._anchors = anchors

    def preload(self, users: npt.NDArray[np.uint64], items: npt.NDArray[np.uint64]) -> None:
        """Cache rows ahead of their events, as a flow has them that ran for a while."""
        self._users.begin_round()
        self._items.begin_round()
        self._users.load(users)
        self._items.load(items)

    def apply(self, decoded: Decoded, raw: RawBatch) -> Changes:
        """Fold a batch and return the rows it changed.

        Messages before the lane's positions were folded already and are passed over.
        """
        starts = np.array([self.positions.get(stream, 0) for stream in raw.streams], np.int64)
        ahead = raw.offset >= starts[raw.stream]
        self._users.begin_round()
        self._items.begin_round()
        before = self._totals.copy()
        count_before = self._dedupe.count
        rows = RowSet()

        products = [change for change in decoded.products if ahead[change.message] and self._owns(hash_id(change.item))]
        self._products.fold(products, self._items, self._scopes, rows.single)
        events = self._mine(decoded.interactions, ahead)
        user_slots = self._fold(events, raw.payload)
        erased = {hash_id(e.user) for e in decoded.erasures if ahead[e.message] and self._owns(hash_id(e.user))}

        users = self._without(np.unique(user_slots), erased)
        folding_in = [self._pool.submit(self._vectors, users[: len(users) // 2], anchor) for anchor in self._anchors]
        self._totals[DEDUPE] = self._dedupe.count
        self._scopes.fold(self._items, rows.single)
        self._products.write_feed(self._totals, rows.single)
        rows.blocks.append(self._items.block(self._items.changed()))
        rows.blocks.append(self._users.block(users))
        rows.blocks += [self._vectors(users[len(users) // 2 :], anchor) for anchor in self._anchors]
        rows.blocks += [future.result() for future in folding_in]
        for user in erased:
            self._forget(user, rows)
        for segment, value in self._dedupe.segments_since(count_before).items():
            rows.single[keys.dedupe(self.prefix, segment)] = value
        new = {**self.positions, **{s: max(at, self.positions.get(s, 0)) for s, at in raw.after.items()}}
        grown = self._totals - before
        if rows or events.size:
            rows.single[keys.lane_globals(self.prefix)] = encode_globals(self._totals)
        cache = {"users": self._users.take_counts(), "items": self._items.take_counts()}
        stats = FoldStats(len(events), int(grown[DUPLICATES]), int(grown[LATE]), len(products), len(rows), cache)
        changes = Changes(dict(self.positions), new, rows, stats)
        self.positions = new
        return changes

    def refold(self, anchor: Anchor, chunk: int = 2000) -> Iterator[Changes]:
        """Yield commits that give every user a vector for `anchor`, then the mark that the lane is ready.

        Call between batches, with every earlier commit done; include `anchor` in
        `use_anchors` first, so that users who act meanwhile get theirs.
        """
        for found in self._store.scan(self.prefix + b"u:"):
            for i in range(0, len(found), chunk):
                self._users.begin_round()
                hashes = np.array([int(key[-16:], 16) for key in found[i : i + chunk]], np.uint64)
                slots = self._users.load(hashes)
                rows = RowSet()
                rows.blocks.append(self._vectors(slots, anchor))
                yield Changes(self.positions, self.positions, rows)
        ready = RowSet({keys.anchor_ready(self.prefix): anchor.version.encode()})
        yield Changes(self.positions, self.positions, ready)

    def _owns(self, id_hash: int) -> bool:
        return id_hash % self.settings.n_lanes == self.lane

    def _mine(self, columns: Columns, ahead: npt.NDArray[np.bool_]) -> Columns:
        if not len(columns):
            return columns
        keep = ahead[columns["message"]]
        if self.settings.n_lanes > 1:
            keep &= columns["user"] % np.uint64(self.settings.n_lanes) == self.lane
        return columns if keep.all() else columns[keep]

    def _fold(self, events: Columns, payload: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Fold the events; return the slot of each one's user."""
        if not len(events):
            return np.zeros(0, np.int64)
        fresh = self._dedupe.accept(events["message"], events["event_id"])
        user_slots = self._users.load_each(events["user"])
        self._items.load(np.concatenate((events["item"], self._users.latest_items(np.unique(user_slots)))))
        at = 0
        while True:
            at = fold_events(
                events, fresh, at, user_slots, self._users.rows, self._items.rows, self._items.index(),
                self._items.counted_in, self._totals, self._params,
            )  # fmt: skip
            if at == len(events):
                break
            self._items.load(np.append(self._users.all_items(user_slots[at]), events["item"][at]))
        self._products.list_items(self._items.new_ids(events, payload))
        self._scopes.count_countries(events[fresh])
        return user_slots[fresh]

    def _vectors(self, slots: npt.NDArray[np.int64], anchor: Anchor) -> RowBlock:
        prefix = keys.vector_prefix(self.prefix, anchor.version)
        return RowBlock(prefix, self._users.ids_of(slots), *pack_vectors(vectors_for(self._users.rows, slots, anchor)))

    def _without(self, slots: npt.NDArray[np.int64], erased: set[int]) -> npt.NDArray[np.int64]:
        """Return the slots whose users are not in `erased`."""
        if not erased:
            return slots
        return slots[~np.isin(self._users.ids_of(slots), np.array(sorted(erased), np.uint64))]

    def _forget(self, user: int, rows: RowSet) -> None:
        self._users.drop(user)
        rows.single[keys.user(self.prefix, user)] = None
        for anchor in self._anchors:
            rows.single[keys.vector(self.prefix, anchor.version, user)] = None
