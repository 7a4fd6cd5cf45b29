"""Everything visitors did that is on the log: each event once, without those of erased users."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from flows.fold.erased_users import Erased
from flows.log.contract import Log, RawBatch
from flows.log.read_to import read_to
from schemas.avro_decoder import Limits, decode
from schemas.events import COLUMN_DTYPE, Change, Columns, Decoded
from schemas.ids import hash_id
from schemas.registry import SchemaRegistry
from state.store.contract import Positions


class Reader(NamedTuple):
    """How a log is read."""

    registry: SchemaRegistry
    now_ms: int
    limits: Limits
    patience_s: float
    progress: Callable[[int], None] = lambda n: None
    """Called with the number of messages that were read since the last call."""


@dataclass
class LogEvents:
    """Events that name an item, in log order, and what is known of these items."""

    events: Columns
    positions: Positions
    item_ids: dict[int, str] = field(default_factory=dict)
    """Id by hash, of every item of an event."""
    categories: dict[int, str] = field(default_factory=dict)
    """Category path by item hash, of the products that have one."""


def read_log_events(log: Log, reader: Reader) -> LogEvents:
    """Return the events up to the end that the log has now.

    Raises LogUnavailable when nothing more comes for the reader's patience, PositionLost.
    """
    found = LogEvents(np.zeros(0, COLUMN_DTYPE), log.start())
    parts, places, erased, n_read = [found.events], [np.zeros(0, np.int64)], dict[int, int](), 0
    for raw in read_to(log, found.positions, log.end(), reader.patience_s):
        decoded = decode(raw, reader.registry, reader.now_ms, reader.limits)
        erased |= {hash_id(one.user): n_read + one.message for one in decoded.erasures}
        rows = decoded.interactions
        rows = rows[rows["item"] != 0]
        parts.append(rows.copy())
        places.append(n_read + rows["message"].astype(np.int64))
        n_read += len(raw)
        _note_items(found, rows, raw, decoded)
        found.positions = raw.after
        reader.progress(len(raw))
    events = np.concatenate(parts)
    _, first = np.unique(events["event_id"] + events["line"].astype(np.uint64), return_index=True)
    first.sort()
    found.events = events[first]
    if erased:
        gone = Erased.of(erased).covers(found.events["user"], np.concatenate(places)[first])
        found.events = found.events[~gone]
    return found


def _note_items(found: LogEvents, rows: Columns, raw: RawBatch, decoded: Decoded) -> None:
    """Note the ids of items not seen before, and the categories of products."""
    items, first = np.unique(rows["item"], return_index=True)
    payload = raw.payload if decoded.payload is None else decoded.payload
    for item, row in zip(items.tolist(), rows[first], strict=True):
        if item not in found.item_ids:
            start = int(row["item_start"])
            found.item_ids[item] = payload[start : start + int(row["item_length"])].tobytes().decode()
    for change in decoded.products:
        fields = change.product or {}
        if "category" in fields or change.change is not Change.MERGE:
            found.categories[hash_id(change.item)] = fields.get("category") or ""
