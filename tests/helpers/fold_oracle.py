"""The fold, slow and obvious: dictionaries, plain loops, nothing incremental about pairs and repeats.

Every counter of the rows is written down from its definition, over the whole set of
events. Histories must stay within MAX_HISTORY and rows within their neighbours.
"""

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from flows.fold.settings import DEFAULT_WEIGHTS, LaneSettings
from flows.log.contract import RawBatch
from schemas.events import COLUMN_DTYPE, Decoded, Kind
from schemas.ids import hash_id

EPOCH_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    ts_ms: int
    kind: Kind = Kind.VIEW
    event_id: str = ""
    price: float = math.nan
    category: str = ""
    brand: str = ""
    country: str = ""
    value: float = 1.0


def batch_of(events: list[Event], first_offset: int = 0, stream: str = "user-events:0") -> tuple[Decoded, RawBatch]:
    """Return events as the lane receives them: one message each, at consecutive offsets of one stream."""
    columns = np.zeros(len(events), COLUMN_DTYPE)
    texts = [event.item.encode() for event in events]
    bounds = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    for i, event in enumerate(events):
        columns[i] = (
            i, 0, event.kind, hash_id(event.event_id or f"{first_offset + i}"), hash_id(event.user),
            hash_id(event.item), event.ts_ms, event.value, event.price, hash_id(event.category), hash_id(event.brand),
            hash_id(event.country), bounds[i], len(texts[i]),
        )  # fmt: skip
    raw = RawBatch(
        (stream,),
        np.zeros(len(events), np.int32),
        np.arange(first_offset, first_offset + len(events), dtype=np.int64),
        np.frombuffer(b"".join(texts), np.uint8),
        bounds,
        {stream: first_offset},
        {stream: first_offset + len(events)},
    )
    return Decoded(columns), raw


def weight_of(event: Event) -> float:
    factor = event.value - 2.5 if event.kind == Kind.RATING else 1.0
    return DEFAULT_WEIGHTS.get(event.kind, 0.0) * factor


def histories(events: list[Event]) -> dict[str, list[Event]]:
    """Return each user's item events in time order; equal times keep the order they came in."""
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.item:
            by_user[event.user].append(event)
    return {user: sorted(own, key=lambda event: event.ts_ms) for user, own in by_user.items()}


def session_before(own: list[Event], k: int, gap_ms: int) -> list[str]:
    first = k
    while first > 0 and k - first < 30 and own[first].ts_ms - own[first - 1].ts_ms <= gap_ms:
        first -= 1
    return [event.item for event in own[first:k] if event.kind < Kind.REMOVE_FROM_CART]


def latest_first(items: list[str]) -> list[str]:
    return list(dict.fromkeys(reversed(items)))[:20]


def runs_of(items: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for item in items:
        if runs and runs[-1][0] == item:
            runs[-1] = (item, runs[-1][1] + 1)
        else:
            runs.append((item, 1))
    return runs


def current_cell(items: list[str]) -> int:
    *completed, (_, length) = runs_of(items)
    length = min(length, 3)
    longer = sum(run > length for _, run in completed)
    share = 0 if longer == 0 else 3 if longer == len(completed) else 1 if longer < len(completed) / 2 else 2
    return ((length - 1) * 6 + min(len(completed), 5)) * 4 + share


def earlier_cell(items: list[str], rank: int, item: str) -> int:
    runs = [run for run, _ in runs_of(items)]
    revisits = sum(run in runs[:i] for i, run in enumerate(runs))
    followed = any(a == items[-1] and b == item for a, b in itertools.pairwise(runs))
    return (((min(rank, 8) - 1) * 3 + min(runs.count(item), 3) - 1) * 3 + min(revisits, 2)) * 2 + int(followed)


class Expected:
    """All counters, from the definitions."""

    def __init__(self, events: list[Event], settings: LaneSettings) -> None:
        self.pairs: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
        self.support: dict[str, int] = defaultdict(int)
        self.repeat: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.current = np.zeros((72, 2), int)
        self.earlier = np.zeros((144, 2), int)
        self.sessions = 0
        self.histories = histories(events)
        for own in self.histories.values():
            for k, event in enumerate(own):
                if event.kind < Kind.REMOVE_FROM_CART:
                    self._learn(event.item, session_before(own, k, settings.session_gap_ms), settings.pair_window)

    def _learn(self, item: str, session: list[str], window: int) -> None:
        distinct = latest_first(session)
        self.sessions += not session
        self.support[item] += item not in distinct
        for rank, other in enumerate([x for x in distinct if x != item][:window]):
            amount = round(100 * math.exp(-rank / 1.8))
            self.pairs[other][item][0 if rank == 0 else 1] += amount
            self.pairs[item][other][2] += amount
        for rank, seen in enumerate(distinct):
            hit = int(seen == item)
            if rank == 0:
                self.current[current_cell(session)] += (hit, 1)
            else:
                self.earlier[earlier_cell(session, rank, seen)] += (hit, 1)
            if rank < 4:
                column = 0 if rank == 0 else 2
                self.repeat[seen][column] += hit
                self.repeat[seen][column + 1] += 1


def decayed(events: list[Event], half_life_ms: int, now_ms: int) -> float:
    """Return the sum of event weights, each halved once per half-life."""
    return sum(weight_of(event) * 0.5 ** ((now_ms - event.ts_ms) / half_life_ms) for event in events)


def refusals(events: list[Event]) -> dict[str, dict[str, int]]:
    """Return what each user refuses at the end and since which second, in the order of the log."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for event in events:
        mine, second = found[event.user], event.ts_ms // 1000
        rated = event.kind == Kind.RATING
        if event.kind in (Kind.DISLIKE, Kind.RETURN) or (rated and event.value <= 2):
            mine[event.item] = max(second, mine.get(event.item, 0))
        elif (event.kind in (Kind.PURCHASE, Kind.ADD_TO_CART) or rated) and second >= mine.get(event.item, second):
            mine.pop(event.item, None)
    return found
