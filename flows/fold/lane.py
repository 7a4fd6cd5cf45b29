"""One shard of the fold: events in, absolute rows and positions out.

`apply` is deterministic: the rows it returns are a function of the rows at the
lane's positions and of the events behind them, however they were cut into
batches. Its memory is a bounded write-through cache of rows; `open` drops it.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flows.fold.batch_order import FIRST, pauses
from flows.fold.changes import Changes, FoldStats
from flows.fold.dedupe import DedupeWindow
from flows.fold.erased_users import EMPTY, Erased
from flows.fold.erasure import take_back_history
from flows.fold.event_effects import FoldState
from flows.fold.item_table import ItemTable
from flows.fold.products import ItemChange, ProductFold, change_item
from flows.fold.purchases import PurchaseTable
from flows.fold.refusals import RefusalFold
from flows.fold.settings import LaneSettings
from flows.fold.top_lists import ScopeFold
from flows.fold.user_history import fold_events
from flows.fold.user_table import UserTable
from flows.fold.user_vectors import UserVectors
from flows.log.contract import RawBatch
from schemas.compiled.distinct import distinct
from schemas.events import Columns, Decoded
from schemas.ids import hash_id
from state.anchor import Anchor
from state.rows import keys
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import DEDUPE, DUPLICATES, LATE, MAX_TS, decode_globals, encode_globals
from state.rows.slot_map import SlotMap
from state.store.contract import Positions, Store
from state.store.row_block import RowSet

MAX_CACHED_BUYERS = 200_000


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
        self._products = ProductFold(store, self.prefix, lane, settings.n_lanes)
        self._dedupe = DedupeWindow(settings.dedupe_window)
        self._totals = decode_globals(None)
        self._vectors = UserVectors(store, self.prefix, self._users)
        self.positions: Positions = {}

    def open(self) -> Positions:
        """Become the lane as it was committed: drop all memory, return the positions to read from."""
        self.positions = self._store.positions(self.prefix)
        totals, owes, bought = self._store.read(
            [name(self.prefix) for name in (keys.lane_globals, keys.owes_vectors, keys.purchase_totals)]
        )
        self._totals = decode_globals(totals)
        self._vectors.open(owes)
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
        self._vectors.use(anchors, others, live_is_missing)

    def preload(self, users: npt.NDArray[np.uint64], items: npt.NDArray[np.uint64]) -> None:
        """Cache rows ahead of their events, as a flow has them that ran for a while."""
        self._users.begin_round()
        self._items.begin_round()
        self._users.load(users)
        self._items.load(items)

    @property
    def owes_vectors(self) -> bool:
        """Whether some users' vectors are behind their rows and can be written: call `write_pending`."""
        return self._vectors.can_write

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

        products = self._products.merge([one for one in decoded.products if ahead[one.message]], rows.single)
        if products:
            self._items.load(np.array([change.item for change in products], np.uint64))
        mine = self._mine(decoded.interactions, ahead)
        events = self._erased.skip(mine)
        erasures = [(e.message, hash_id(e.user)) for e in decoded.erasures if ahead[e.message]]
        erasures = sorted((message, user) for message, user in erasures if self._owns(user))
        payload = raw.payload if decoded.payload is None else decoded.payload
        users, buyers = self._fold_in_order(events, payload, products, erasures, rows.single)
        erased = {user for _, user in erasures}
        later = self._vectors.leaves(behind)
        vectors = self._vectors.begin(users, later)
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
        self._vectors.owe(users, later, rows.single)
        if erased:
            self._delete_rows(erased, users, buyers, later, rows)
        for segment, value in self._dedupe.segments_since(count_before).items():
            rows.single[keys.dedupe(self.prefix, segment)] = value
        new = {**self.positions, **{s: max(at, self.positions.get(s, 0)) for s, at in raw.after.items()}}
        grown = self._totals - before
        if rows or events.size:
            rows.single[keys.lane_globals(self.prefix)] = encode_globals(self._totals)
        cache = {"users": self._users.take_counts(), "items": self._items.take_counts()}
        n_products = sum(change.owned for change in products)
        stats = FoldStats(
            len(events), int(grown[DUPLICATES]), int(grown[LATE]), n_products, len(rows), cache,
            len(mine) - len(events),
        )  # fmt: skip
        changes = Changes(dict(self.positions), new, rows, stats, erased=frozenset(erased))
        self.positions = new
        return changes

    def erase(self, users: Collection[int]) -> Changes:
        """Return a commit that erases these users of the lane (id hashes), at its present positions."""
        for table in (self._users, self._items, self._purchases, self._refusals):
            table.begin_round()
        rows = RowSet()
        for user in sorted(users):
            self._take_back(user)
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
        for rows in self._vectors.refold(anchor):
            yield Changes(self.positions, self.positions, rows, in_parts=True)
        ready = RowSet({keys.anchor_ready(self.prefix): anchor.version.encode()})
        yield Changes(self.positions, self.positions, ready)

    def write_pending(self) -> Changes:
        """Return a commit that brings some of the vectors owed up to their users' rows.

        Call between batches, as `refold`, while `owes_vectors`.
        """
        rows, in_parts = self._vectors.write_pending()
        return Changes(self.positions, self.positions, rows, in_parts=in_parts)

    def _owns(self, id_hash: int) -> bool:
        return id_hash % self.settings.n_lanes == self.lane

    def _mine(self, columns: Columns, ahead: npt.NDArray[np.bool_]) -> Columns:
        if not len(columns):
            return columns
        keep = ahead[columns["message"]]
        if self.settings.n_lanes > 1:
            keep &= columns["user"] % np.uint64(self.settings.n_lanes) == self.lane
        return columns if keep.all() else columns[keep]

    def _fold_in_order(
        self, events: Columns, payload: npt.NDArray[np.uint8], products: list[ItemChange],
        erasures: list[tuple[int, int]], rows: dict[bytes, bytes | None],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:  # fmt: skip
        """Fold the events, each product and erasure (message, user) in its place.

        Return (slots of users, who bought), ascending. Only users and buyers are returned who have a row at the end.
        """
        folded = []
        stops = pauses(events, products, erasures, self._items)
        cuts = np.searchsorted(events["message"], [stop.message for stop in stops]).tolist()
        for stop, (first, end) in zip(stops, pairwise([*cuts, len(events)]), strict=True):
            if stop.erased is not None:
                self._take_back(stop.erased)
            elif stop.message != FIRST:  # what the items were counted as until now
                self._scopes.fold(self._items, rows)
                self._items.uncount()
            for change in stop.changes:
                change_item(change, self._items, self._scopes)
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
            at = fold_events(events, fresh, at, user_slots, self._fold_state())
            if at == len(events):
                break
            self._items.load(np.append(self._users.all_items(user_slots[at]), events["item"][at]))
        self._products.list_items(self._items.new_ids(events, payload))
        counted, user_slots = events[fresh], user_slots[fresh]
        self._scopes.count_countries(counted)
        self._refusals.fold(counted, user_slots, self._users.rows)
        return user_slots, self._purchases.fold(counted)

    def _fold_state(self) -> FoldState:
        """Return what the kernels change in this round."""
        items = self._items
        return FoldState(self._users.rows, items.rows, items.index(), items.counted_in, self._totals, self._params)

    def _take_back(self, user: int) -> None:
        """Make the rows those of a lane that never saw this user, as far as the user's own row holds it."""
        (slot,) = self._users.load(np.array([user], np.uint64))
        self._items.load(self._users.all_items(slot))
        take_back_history(self._fold_state(), slot)
        self._users.drop(user)
        self._purchases.erase(user)
        self._refusals.erase(user)

    def _delete_rows(
        self, erased: set[int], users: npt.NDArray[np.int64], buyers: npt.NDArray[np.uint64], later: bool, rows: RowSet
    ) -> None:
        """Delete the rows of erased users, but for those written anew of users who came back in the same batch.

        `later`: their vectors are not written yet.
        """
        back, bought = set(self._users.ids_of(users).tolist()), set(buyers.tolist())
        for user in erased:
            if user not in back:
                rows.single[keys.user(self.prefix, user)] = None
            if user not in bought:
                rows.single[keys.purchases(self.prefix, user)] = None
            self._vectors.delete(user, user in back and not later, rows.single)
