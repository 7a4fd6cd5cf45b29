"""A few events of every kind, folded before a flow takes its lanes.

A kernel is compiled when it is first called with arrays of some types, which takes the better part of a minute where
no compiled ones are kept. A flow that did so with its first events would meanwhile keep its lanes, and whoever waits
for these events.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import RawBatch
from schemas.avro_decoder import Limits, decode
from schemas.compiled.kept import mark_compiled
from schemas.ids import hash_id
from schemas.json_events import encode, event_from_json
from schemas.registry import FolderRegistry
from state.anchor import Anchor
from state.store.contract import MemoryStore, Positions
from state.store.redo_pieces import commands_of, redo_pieces

NOW_MS = 1_800_000_000_000
SETTINGS = LaneSettings(max_cached_users=64, max_cached_items=64, dedupe_window=2048)
LIMITS = Limits(max_message_bytes=10_000, max_future_ms=0)
ABOUT = {"category": "c", "brand": "b", "price": 2.0}
EVENTS: list[dict[str, Any]] = [
    {"type": "product", "item": "a", "title": "A", **ABOUT, "stock": 3},
    {"type": "view", "user": "u", "item": "a", **ABOUT, "country": "DE"},
    {"type": "add_to_cart", "user": "u", "item": "b", **ABOUT},
    {"type": "purchase", "user": "u", "lines": [{"item": "a", "price": 2.0}, {"item": "b", "quantity": 2.0}]},
    {"type": "view", "session": "s", "item": "b"},
    {"type": "rating", "user": "u", "item": "a", "stars": 4.0},
    {"type": "dislike", "user": "u", "item": "b"},
    {"type": "search", "user": "u", "query": "a"},
    {"type": "view", "user": "v", "item": "c"},
    {"type": "view", "user": "v", "item": "a"},
]


@cache
def warm_up() -> None:
    """Once in a process: compile what folding and committing need, or load what is kept of earlier programs."""
    hashes = np.sort(np.array([hash_id(item) for item in "abc"], np.uint64))
    one = np.eye(3, dtype=np.float32)
    store, registry = MemoryStore(), FolderRegistry()
    lane = Lane(SETTINGS, store, "warm-up")
    lane.open()
    lane.use_anchors(Anchor("warm-up", list("abc"), hashes, one, one, 1.0, np.ones(32)))
    later = [{**event, "ts_ms": NOW_MS + 5000} for event in EVENTS]
    alone = [[{**event, "ts_ms": NOW_MS + 1000 * n}] for n, event in enumerate(EVENTS)]  # columns of one are contiguous
    for events in (EVENTS, *alone, later, [{"type": "erasure", "user": "v"}, *later]):
        raw = _batch(events, lane.positions, registry)
        changes = lane.apply(decode(raw, registry, NOW_MS + 10_000, LIMITS), raw)
        for _ in changes.rows.commands():
            pass
        for piece in redo_pieces(changes.rows):  # as if the commit had to be finished by somebody else
            commands_of(b"".join(piece), store.read)
        store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        lane.open()
    mark_compiled("flow")


def _batch(events: Sequence[Mapping[str, Any]], positions: Positions, registry: FolderRegistry) -> RawBatch:
    """Return events as a log gives them, in one stream for each topic."""
    values, topics = list[bytes](), list[str]()
    for n, event in enumerate(events):
        named = {} if event["type"] == "product" else {"event_id": f"{n}-{event.get('ts_ms')}"}
        topic, record, _ = event_from_json({"ts_ms": NOW_MS + n, **named, **event}, NOW_MS)
        values.append(encode(topic, record, registry))
        topics.append(f"{topic}:0")
    streams = tuple(dict.fromkeys(topics))
    before = {stream: positions.get(stream, 0) for stream in streams}
    offset = [before[topic] + topics[:n].count(topic) for n, topic in enumerate(topics)]
    return RawBatch(
        streams, np.array([streams.index(topic) for topic in topics], np.int32), np.array(offset, np.int64),
        np.frombuffer(b"".join(values), np.uint8), np.cumsum([0, *map(len, values)], dtype=np.int64), before,
        {stream: at + topics.count(stream) for stream, at in before.items()},
    )  # fmt: skip
