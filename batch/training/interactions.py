"""The log's interactions as a sparse matrix of users and items."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from batch.training.log_events import Reader, read_log_events
from flows.fold.event_effects import event_weights
from flows.log.contract import Log
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


def read_interactions(log: Log, reader: Reader, weights: npt.NDArray[np.float64]) -> Interactions:
    """Return the log's events of positive weight up to the end that it has now. Raises LogUnavailable, PositionLost."""
    read = read_log_events(log, reader)
    events = read.events
    weight = event_weights(np.ascontiguousarray(events["kind"]), np.ascontiguousarray(events["value"]), weights)
    keep = weight > 0
    events, weight = events[keep], weight[keep]
    user_hash, user = np.unique(events["user"], return_inverse=True)
    item_hash, item = np.unique(events["item"], return_inverse=True)
    ids = [read.item_ids[item] for item in item_hash.tolist()]
    return Interactions(user, item, weight, events["ts_ms"], user_hash, item_hash, ids, read.positions)
