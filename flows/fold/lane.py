"""One shard of the fold: events in, absolute rows and positions out.

`apply` is deterministic: the rows it returns are a function of the rows at the
lane's positions and of the events behind them, however they were cut into
batches. Its memory is a bounded write-through cache of rows; `open` drops it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flows.fold.dedupe import DedupeWindow
from flows.fold.erased_users import EMPTY, Erased
from flows.fold.erasure import unlearn_history
from flows.fold.foldin import vectors_for
from flows.fold.item_table import ItemTable
from flows.fold.pending_vectors import CHUNK, OwedVectors
from flows.fold.products import ProductFold
from flows.fold.purchases import PurchaseTable
from flows.fold.refusals import RefusalFold
from flows.fold.settings import LaneSettings
from flows.fold.top_lists import ScopeFold
from flows.fold.user_history import fold_events
from flows.fold.user_table import UserTable
from flows.log.contract import RawBatch
from schemas.compiled.distinct import distinct
from schemas.events import Columns, Decoded
from schemas.ids import hash_id
from state.anchor import Anchor
from state.rows import keys
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import DEDUPE, DUPLICATES, LATE, MAX_TS, decode_globals, encode_globals
from state.rows.slot_map import SlotMap
from state.rows.vector_rows import pack_vectors
from state.store.contract import Positions, Store
from state.store.row_block import RowBlock, RowSet

MAX_CACHED_BUYERS = 200_000


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
    n_erased: int = 0
    """Passed over: of users who were erased later; none of `n_events`."""

    def __add__(self, other: "FoldStats") -> "FoldStats":
        cache = {
            table: (found + other.cache.get(table, (0, 0))[0], read + other.cache.get(table, (0, 0))[1])
            for table, (found, read) in (self.cache or dict.fromkeys(other.cache, (0, 0))).items()
        }
        return FoldStats(
            self.n_events + other.n_events, self.n_duplicates + other.n_duplicates, self.n_late + other.n_late,
            self.n_products + other.n_products, self.n_rows + other.n_rows, cache, self.n_erased + other.n_erased,
        )  # fmt: skip


@dataclass(frozen=True)
class Changes:
    """Absolute rows that belong to `new` positions; commit them against `expected`.

    `in_parts`: each row is true by itself, and what a crash leaves out is written again: refresh them.
    """

    expected: Positions
    new: Positions
    rows: RowSet
    stats: FoldStats = FoldStats()
    in_parts: bool = False
    erased: frozenset[int] = frozenset()
    """Users whose rows these changes delete because they were erased, by id hash."""


class Lane:
    """Folds the events of the users with `user hash mod n_lanes == lane`, but for those of `erased` users."""

    def __init__(
        self, settings: LaneSettings, store: Store, generation: str, lane: int = 0, erased: Erased = EMPTY
    ) -> None:
        self.settings, self.lane = settings, lane
        self.prefix = keys.prefix(generation, lane)
        self._store, self._erased = store, erased
        self._params = settings.fold_params()
        self._users = UserTable(settings.max_cached_users, store, self.prefix)
        self._items = ItemTable(settings.max_cached_items, store, self.prefix)
        self._purchases = PurchaseTable(min(settings.max_cached_users, MAX_CACHED_BUYERS), store, self.prefix)
        self._refusals = RefusalFold(store, self.prefix)
        self._scopes = ScopeFold(store, self.prefix, self._params, settings.scope_limit, settings.small_scope_limit)
        self._products = ProductFold(store, self.prefix)
        self._dedupe = DedupeWindow(settings.dedupe_window)
        self._totals = decode_globals(None)
        self._anchors: tuple[Anchor, ...] = ()
        self._versions: frozenset[str] = frozenset()
        self._live_is_missing = False
        self._owed = OwedVectors()
        self._settling: Iterator[Changes] | None = None
        self._pool = ThreadPoolExecutor(1, "fold-in")
        self.positions: Positions = {}

    def open(self) -> Positions:
        """Become the lane as it was committed: drop all memory, return the positions to read from."""
        self.positions = self._store.positions(self.prefix)
        totals, owes, bought = self._store.read(
            [name(self.prefix) for name in (keys.lane_globals, keys.owes_vectors, keys.purchase_totals)]
        )
        self._totals = decode_globals(totals)
        self._owed, self._settling = OwedVectors(everybody=owes is not None), None
        self._users.clear()
        self._items.clear()
        self._purchases.open(bought)
        self._refusals.clear()
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

    def use_anchors(self, *anchors: Anchor, others: Iterable[str] = (), live_is_missing: bool = False) -> None:
        """Keep user vectors for these anchors (the live one, and the one being refolded).

        `others`: versions of which only vectors of users who are erased are seen to: they are deleted.
        `live_is_missing`: the live anchor is not on this machine yet; users who act are owed vectors until it is.
        """
        if live_is_missing and not self._live_is_missing and self._owes:  # by no anchor that is here
            self._owed, self._settling = OwedVectors(everybody=True), None
        self._anchors, self._live_is_missing = anchors, live_is_missing
        self._versions = frozenset((*(anchor.version for anchor in anchors), *others))

    def preload(self, users: npt.NDArray[np.uint64], items: npt.NDArray[np.uint64]) -> None:
        """Cache rows ahead of their events, as a flow has them that ran for a while."""
        self._users.begin_round()
        self._items.begin_round()
        self._users.load(users)
        self._items.load(items)

    @property
    def owes_vectors(self) -> bool:
        """Whether some users' vectors are behind their rows and can be written: call `write_pending`."""
        return self._owes and not self._live_is_missing

    @property
    def _owes(self) -> bool:
        return bool(self._owed) or self._settling is not None

    def apply(self, decoded: Decoded, raw: RawBatch, behind: bool = False) -> Changes:
        """Fold a batch and return the rows it changed.

        Messages before the lane's positions were folded already and are passed over.
        `behind`: many more events wait, so the users' vectors are left for `write_pending`, once for all of them.
        """
        starts = np.array([self.positions.get(stream, 0) for stream in raw.streams], np.int64)
        ahead = raw.offset >= starts[raw.stream]
        for table in (self._users, self._items, self._purchases, self._refusals):
            table.begin_round()
        before = self._totals.copy()
        count_before = self._dedupe.count
        rows = RowSet()

        products = [change for change in decoded.products if ahead[change.message] and self._owns(hash_id(change.item))]
        self._products.fold(products, self._items, self._scopes, rows.single)
        mine = self._mine(decoded.interactions, ahead)
        events = self._erased.skip(mine)
        erasures = [(e.message, hash_id(e.user)) for e in decoded.erasures if ahead[e.message]]
        erasures = sorted((message, user) for message, user in erasures if self._owns(user))
        payload = raw.payload if decoded.payload is None else decoded.payload
        users, buyers = self._fold_around(events, payload, erasures)
        erased = {user for _, user in erasures}
        # While an anchor is refolded every user who acts gets vectors for both, or some would miss the switch.
        later = behind and len(self._anchors) == 1 and not self._live_is_missing
        vectors = self._start_vectors(users, () if later else self._anchors)
        self._totals[DEDUPE] = self._dedupe.count
        self._refusals.write(rows.single)
        self._purchases.write_older(rows.single)
        self._scopes.fold(self._items, rows.single)
        self._products.write_feed(self._totals, rows.single)
        rows.blocks += self._items.blocks(self._items.changed())
        rows.blocks += self._users.blocks(users)
        if len(buyers):
            rows.blocks.append(self._purchases.block(buyers))
        if len(buyers) or erased:
            rows.single[keys.purchase_totals(self.prefix)] = self._purchases.totals()
        rows.blocks += vectors()
        if (later or self._live_is_missing) and len(users):
            self._owed.add(self._users.ids_of(users))
            rows.single[keys.owes_vectors(self.prefix)] = b"1"
        if erased:
            self._delete_rows(erased, users, buyers, later, rows)
        for segment, value in self._dedupe.segments_since(count_before).items():
            rows.single[keys.dedupe(self.prefix, segment)] = value
        new = {**self.positions, **{s: max(at, self.positions.get(s, 0)) for s, at in raw.after.items()}}
        grown = self._totals - before
        if rows or events.size:
            rows.single[keys.lane_globals(self.prefix)] = encode_globals(self._totals)
        cache = {"users": self._users.take_counts(), "items": self._items.take_counts()}
        stats = FoldStats(
            len(events), int(grown[DUPLICATES]), int(grown[LATE]), len(products), len(rows), cache,
            len(mine) - len(events),
        )  # fmt: skip
        changes = Changes(dict(self.positions), new, rows, stats, erased=frozenset(erased))
        self.positions = new
        return changes

    def erase(self, users: Collection[int]) -> Changes:
        """Return a commit that forgets these users of the lane (id hashes), at the positions where it is."""
        for table in (self._users, self._items, self._purchases, self._refusals):
            table.begin_round()
        rows = RowSet()
        for user in sorted(users):
            self._forget(user)
        self._refusals.write(rows.single)
        self._scopes.fold(self._items, rows.single)
        rows.blocks += self._items.blocks(self._items.changed())
        rows.single[keys.purchase_totals(self.prefix)] = self._purchases.totals()
        rows.single[keys.lane_globals(self.prefix)] = encode_globals(self._totals)
        self._delete_rows(set(users), np.zeros(0, np.int64), np.zeros(0, np.uint64), False, rows)
        return Changes(dict(self.positions), dict(self.positions), rows)

    def refold(self, anchor: Anchor) -> Iterator[Changes]:
        """Yield commits that give every user a vector for `anchor`, then the mark that the lane is ready.

        Call between batches, with every earlier commit done; include `anchor` in
        `use_anchors` first, so that users who act meanwhile get theirs.
        """
        for users in self._everybody():
            yield self._vectors_of(users, (anchor,))
        ready = RowSet({keys.anchor_ready(self.prefix): anchor.version.encode()})
        yield Changes(self.positions, self.positions, ready)

    def write_pending(self) -> Changes:
        """Return a commit that brings some of the vectors owed up to their users' rows.

        Call between batches, as `refold`, while `owes_vectors`.
        """
        self._settling = self._settling or self._settle()
        return next(self._settling)

    def _settle(self) -> Iterator[Changes]:
        while self._owed:
            everybody, owed = self._owed.take()
            yield from (self._vectors_of(users, self._anchors) for users in owed)
            if everybody:
                yield from (self._vectors_of(users, self._anchors) for users in self._everybody())
            # Batches folded meanwhile may owe again: another turn, and the mark stays.
        self._settling = None
        yield Changes(self.positions, self.positions, RowSet({keys.owes_vectors(self.prefix): None}))

    def _everybody(self) -> Iterator[npt.NDArray[np.uint64]]:
        waiting: list[int] = []
        for found in self._store.scan(keys.user_prefix(self.prefix)):
            waiting += (int(key[-16:], 16) for key in found)
            if len(waiting) >= CHUNK:
                yield distinct(np.array(waiting, np.uint64))
                waiting = []
        yield distinct(np.array(waiting, np.uint64))

    def _vectors_of(self, users: npt.NDArray[np.uint64], anchors: tuple[Anchor, ...]) -> Changes:
        self._users.begin_round()
        slots = self._users.load(users)
        slots = slots[self._users.rows["n"][slots] > 0]  # without those who were erased meanwhile
        rows = RowSet()
        rows.blocks += self._start_vectors(slots, anchors)()
        return Changes(self.positions, self.positions, rows, in_parts=True)

    def _owns(self, id_hash: int) -> bool:
        return id_hash % self.settings.n_lanes == self.lane

    def _mine(self, columns: Columns, ahead: npt.NDArray[np.bool_]) -> Columns:
        if not len(columns):
            return columns
        keep = ahead[columns["message"]]
        if self.settings.n_lanes > 1:
            keep &= columns["user"] % np.uint64(self.settings.n_lanes) == self.lane
        return columns if keep.all() else columns[keep]

    def _fold_around(
        self, events: Columns, payload: npt.NDArray[np.uint8], erasures: list[tuple[int, int]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Fold the events, each erasure (message, user) in its place; return (slots of users, who bought), ascending.

        Only users and buyers are returned who have a row at the end.
        """
        cuts = np.searchsorted(events["message"], [message for message, _ in erasures]).tolist()
        folded = [self._fold(events[: cuts[0]] if cuts else events, payload)]
        for (_, user), (first, end) in zip(erasures, pairwise([*cuts, len(events)]), strict=True):
            self._forget(user)
            folded.append(self._fold(events[first:end], payload))
        acted = distinct(np.concatenate([slots for slots, _ in folded]))
        bought = distinct(np.concatenate([buyers for _, buyers in folded]))
        if erasures:
            acted = acted[self._users.rows["first_ms"][acted] != 0]
            bought = bought[self._purchases.holds(bought)]
        return acted, bought

    def _fold(
        self, events: Columns, payload: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Fold the events; return (the slot of each one's user, who bought)."""
        if not len(events):
            return np.zeros(0, np.int64), np.zeros(0, np.uint64)
        fresh = self._dedupe.accept(events["message"], events["event_id"])
        user_slots = self._users.load_each(events["user"])
        self._items.load(np.concatenate((events["item"], self._users.latest_items(distinct(user_slots)))))
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
        counted, user_slots = events[fresh], user_slots[fresh]
        self._scopes.count_countries(counted)
        self._refusals.fold(counted, user_slots, self._users.rows)
        return user_slots, self._purchases.fold(counted)

    def _start_vectors(self, slots: npt.NDArray[np.int64], anchors: tuple[Anchor, ...]) -> Callable[[], list[RowBlock]]:
        """Begin to fold the users in, half of them in a thread; what is returned does the rest and gives the rows."""
        half = len(slots) // 2
        beside = [self._pool.submit(self._vectors, slots[:half], anchor) for anchor in anchors]
        return lambda: [
            *(self._vectors(slots[half:], anchor) for anchor in anchors), *(future.result() for future in beside)
        ]  # fmt: skip

    def _vectors(self, slots: npt.NDArray[np.int64], anchor: Anchor) -> RowBlock:
        prefix = keys.vector_prefix(self.prefix, anchor.version)
        return RowBlock(prefix, self._users.ids_of(slots), *pack_vectors(vectors_for(self._users.rows, slots, anchor)))

    def _forget(self, user: int) -> None:
        """Make the rows those of a lane that never saw this user, as far as the user's own row can tell."""
        (slot,) = self._users.load(np.array([user], np.uint64))
        self._items.load(self._users.all_items(slot))
        unlearn_history(
            self._users.rows, slot, self._items.rows, self._items.index(), self._items.counted_in, self._totals,
            self._params,
        )  # fmt: skip
        self._users.drop(user)
        self._purchases.forget(user)
        self._refusals.forget(user)

    def _delete_rows(
        self, erased: set[int], users: npt.NDArray[np.int64], buyers: npt.NDArray[np.uint64], later: bool, rows: RowSet
    ) -> None:
        """Delete the rows of erased users, but for those written anew of users who came back in the same batch.

        `later`: their vectors are not written yet.
        """
        back, bought = set(self._users.ids_of(users).tolist()), set(buyers.tolist())
        written = {anchor.version for anchor in self._anchors}
        for user in erased:
            if user not in back:
                rows.single[keys.user(self.prefix, user)] = None
            if user not in bought:
                rows.single[keys.purchases(self.prefix, user)] = None
            for version in self._versions:
                if later or user not in back or version not in written:
                    rows.single[keys.vector(self.prefix, version, user)] = None
