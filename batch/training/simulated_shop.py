"""A shop in memory: events through the real lane, answers through the real scorer, no server needed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import RawBatch
from schemas.events import COLUMN_DTYPE, Columns, Decoded, Kind
from state.rows.item_rows import ItemRows
from state.rows.slot_map import SlotMap
from state.store.contract import MemoryStore

CHUNK = 20_000
STREAM = "events:0"

Ids = npt.NDArray[np.uint64]


class View(NamedTuple):
    """The rows of a shop as the scorer reads them."""

    rows: ItemRows
    slots: SlotMap
    totals: npt.NDArray[np.int64]
    now_ms: int


def columns_of(
    user: Ids, item: Ids, ts_ms: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8] | None = None, first_id: int = 1
) -> Columns:
    """Return interactions as a lane reads them; every row is an event of its own."""
    columns = np.zeros(len(user), COLUMN_DTYPE)
    columns["message"] = np.arange(len(user))
    columns["event_id"] = np.arange(first_id, first_id + len(user), dtype=np.uint64)
    columns["kind"] = Kind.VIEW if kind is None else kind
    columns["user"], columns["item"], columns["ts_ms"] = user, item, ts_ms
    columns["value"], columns["price"] = 1, np.nan
    return columns


class SimulatedState:
    """A lane on a dictionary that keeps every user and item in its cache."""

    def __init__(self, n_users: int, n_items: int, settings: LaneSettings | None = None) -> None:
        sizes = {"max_cached_users": n_users + CHUNK, "max_cached_items": n_items + CHUNK}
        self.settings = replace(settings or LaneSettings(), **sizes)  # type: ignore[arg-type]
        self._lane = Lane(self.settings, MemoryStore(), "shop")
        self._lane.open()
        self._at = 0

    def learn(self, events: Columns) -> None:
        """Fold events in the order given."""
        for first in range(0, len(events), CHUNK):
            part = events[first : first + CHUNK].copy()
            part["message"] = np.arange(len(part))
            n, at = len(part), self._at
            raw = RawBatch(
                (STREAM,), np.zeros(n, np.int32), np.arange(at, at + n), np.zeros(0, np.uint8),
                np.zeros(n + 1, np.int64), {STREAM: at}, {STREAM: at + n},
            )  # fmt: skip
            self._lane.apply(Decoded(part), raw)
            self._at += n

    def view(self) -> View:
        """Return the live rows; `now_ms` is the newest event."""
        rows, slots, totals = self._lane.cached_rows()
        return View(rows, slots, totals, self._lane.newest_ms)


def sessions_by_end(users: Ids, ts_ms: npt.NDArray[np.int64], gap_ms: int) -> npt.NDArray[np.int64]:
    """Return a session number for every event, numbered by when the session ended.

    `users` and `ts_ms` in any order; a pause longer than `gap_ms` ends a session.
    """
    order = np.lexsort((ts_ms, users))
    starts = np.ones(len(order), bool)
    starts[1:] = (users[order][1:] != users[order][:-1]) | (np.diff(ts_ms[order]) > gap_ms)
    number = np.cumsum(starts) - 1
    n = int(number[-1]) + 1 if len(number) else 0
    ends = np.zeros(n, np.int64)
    np.maximum.at(ends, number, ts_ms[order])
    rank = np.empty(n, np.int64)
    rank[np.argsort(ends, kind="stable")] = np.arange(n)
    found = np.empty(len(order), np.int64)
    found[order] = rank[number]
    return found


class Pairs(NamedTuple):
    """Predictions to make: what was seen, oldest first, and what came next."""

    history: Sequence[Ids]
    target: Ids
    basket: Sequence[Ids] | None = None
    """Everything that came next, where several items count; `target` is then the first of them."""
    bought_ms: Sequence[npt.NDArray[np.int64]] | None = None
    """When the items of the history were bought, if they are purchases and the prediction is for a new visit."""

    @property
    def targets(self) -> Sequence[Ids]:
        """Return all items each prediction should find."""
        return list(self.target[:, None]) if self.basket is None else self.basket


def pairs_of(session: npt.NDArray[np.int64], item: Ids, limit: int = 0) -> Pairs:
    """Return every position but the first of every session; of the last sessions, at most `limit` in all.

    `session` numbers (ascending = later) and `item` in time order within each session.
    """
    order = np.argsort(session, kind="stable")
    bounds = np.append(np.flatnonzero(np.diff(session[order], prepend=-1)), len(order))
    history, target = [], []
    for a, b in zip(bounds[-2::-1], bounds[:0:-1], strict=True):
        items = item[order[a:b]]
        for k in range(1, len(items)):
            history.append(items[:k])
            target.append(items[k])
        if limit and len(target) >= limit:
            break
    return Pairs(history, np.array(target, np.uint64))
