"""The log's interactions as a sparse matrix of users and items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from flows.fold.erased_users import Erased
from flows.fold.event_effects import event_weights
from flows.log.contract import Log
from flows.log.read_to import read_to
from schemas.avro_decoder import Limits, decode
from schemas.ids import hash_id
from schemas.registry import SchemaRegistry
from state.store.contract import Positions


@dataclass(frozen=True)
class Interactions:
    """Weighted events in log order; `user` and `item` index `user_hash` and `item_hash` (ascending)."""

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    ts_ms: npt.NDArray[np.int64]
    user_hash: npt.NDArray[np.uint64]
    item_hash: npt.NDArray[np.uint64]
    item_ids: list[str]
    positions: Positions

    def matrix(self, chosen: npt.NDArray[np.bool_] | None = None) -> csr_matrix:
        """Return summed weights, shape (n_users, n_items)."""
        rows = slice(None) if chosen is None else chosen
        shape = (len(self.user_hash), len(self.item_hash))
        return csr_matrix((self.weight[rows], (self.user[rows], self.item[rows])), shape)


def read_interactions(
    log: Log, registry: SchemaRegistry, weights: npt.NDArray[np.float64], now_ms: int, limits: Limits,
    patience_s: float, progress: Callable[[int], None],
) -> Interactions:  # fmt: skip
    """Read the log to the end that it has now; every event id counts once, and only events of positive weight.

    What a user did before an erasure is not there. Raises LogUnavailable when nothing more comes for `patience_s`,
    PositionLost.
    """
    parts, texts, places, erased, n_read = [], {}, [], dict[int, int](), 0
    positions, end = log.start(), log.end()
    for raw in read_to(log, positions, end, patience_s):
        decoded = decode(raw, registry, now_ms, limits)
        erased |= {hash_id(one.user): n_read + one.message for one in decoded.erasures}
        rows = decoded.interactions
        rows = rows[rows["item"] != 0]
        places.append(n_read + rows["message"].astype(np.int64))
        n_read += len(raw)
        parts.append(rows[["event_id", "line", "user", "item", "ts_ms", "kind", "value"]].copy())
        ids, first = np.unique(rows["item"], return_index=True)
        for item, row in zip(ids.tolist(), rows[first], strict=True):
            if item not in texts:
                start = int(row["item_start"])
                payload = raw.payload if decoded.payload is None else decoded.payload
                texts[item] = payload[start : start + int(row["item_length"])].tobytes().decode()
        positions = raw.after
        progress(len(raw))
    events = np.concatenate(parts) if parts else np.zeros(0, [("event_id", "u8"), ("line", "i4"), ("user", "u8"),
        ("item", "u8"), ("ts_ms", "i8"), ("kind", "u1"), ("value", "f4")])  # fmt: skip
    keys = events["event_id"] + events["line"].astype(np.uint64)
    _, first = np.unique(keys, return_index=True)
    first.sort()
    events = events[first]
    if erased:
        events = events[~Erased.of(erased).covers(events["user"], np.concatenate(places)[first])]
    weight = event_weights(np.ascontiguousarray(events["kind"]), np.ascontiguousarray(events["value"]), weights)
    keep = weight > 0
    events, weight = events[keep], weight[keep]
    user_hash, user = np.unique(events["user"], return_inverse=True)
    item_hash, item = np.unique(events["item"], return_inverse=True)
    return Interactions(
        user, item, weight, events["ts_ms"], user_hash, item_hash, [texts[i] for i in item_hash.tolist()], positions
    )
