"""The reference rows: the events as they were made, folded by a lane over a dictionary alone.

Nothing is read back from the log, so that what a producer or the log lost, changed or doubled shows as well.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import Message, RawBatch
from schemas.avro_decoder import Limits, decode
from schemas.events import ATTRIBUTE, PRODUCT_FIELDS, TOPICS
from schemas.ids import hash_id
from schemas.records import read_value
from schemas.registry import FolderRegistry
from state.rows import keys, lane_rows
from state.rows.user_rows import decode_users, empty_users
from state.store.contract import MemoryStore

GENERATION = "g1"
PREFIXES = (keys.prefix(GENERATION, 0), keys.prefix(GENERATION, 1))
"""Of the lanes there may be."""
PREFIX = PREFIXES[0]
BATCH = 5_000


def batch_of(messages: Sequence[tuple[str, bytes]], first: int) -> RawBatch:
    """Return messages (topic, value) as one batch, each at offset `first` plus its place, whatever its topic."""
    streams = tuple(f"{topic}:0" for topic in TOPICS)
    stream = np.array([TOPICS.index(topic) for topic, _ in messages], np.int32)
    bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum([len(value) for _, value in messages])))
    offset = np.arange(first, first + len(messages), dtype=np.int64)
    payload = np.frombuffer(b"".join(value for _, value in messages), np.uint8)
    before, after = (dict.fromkeys(streams, at) for at in (first, first + len(messages)))
    return RawBatch(streams, stream, offset, payload, bounds.astype(np.int64), before, after)


def fold_sent(sent: Sequence[Message], settings: LaneSettings) -> dict[bytes, bytes]:
    """Return the rows of messages in the order they were made, folded in one process into memory."""
    store, registry = MemoryStore(), FolderRegistry()
    lanes = [Lane(settings, store, GENERATION, lane) for lane in range(settings.n_lanes)]
    for lane in lanes:
        lane.open()
    for first in range(0, len(sent), BATCH):
        raw = batch_of([(one.topic, one.value or b"") for one in sent[first : first + BATCH]], first)
        decoded = decode(raw, registry, time.time_ns() // 1_000_000, Limits())
        assert not decoded.bad, "everything that is sent can be folded"
        for lane in lanes:
            changes = lane.apply(decoded, raw)
            store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
    return store.rows


def known_products(sent: Sequence[Message]) -> dict[str, dict[str, Any]]:
    """Return what is known of each product at the end, field by field; times of products grow in what was sent."""
    registry, found = FolderRegistry(), dict[str, dict[str, Any]]()
    for message in sent:
        if message.topic not in ("products", "product-updates") or message.value is None:
            continue
        record = read_value(message.value, message.topic, registry)
        change, known = record.get("change", "whole"), found.setdefault(record["item"], {})
        if change != "merge":
            known.clear()
        if change == "gone":
            known["gone"] = True
            continue
        for name in record.get("cleared", ()):
            known.pop(name, None)
        for name in PRODUCT_FIELDS[:-1]:
            if record[name] is not None:
                known[name] = record[name]
        for name, text in record["attributes"].items():
            known[ATTRIBUTE + name] = text
        if record["title"] is not None:
            known.pop("gone", None)
    return found


def differing_products(real: dict[bytes, bytes], sent: Sequence[Message], n_lanes: int = 1) -> int:
    """Return how many products differ, in the lanes that own them, from what their changes make of them."""
    wrong = 0
    for item, known in known_products(sent).items():
        number = hash_id(item)
        row = orjson.loads(real.get(keys.product(PREFIXES[number % n_lanes], number), b"{}"))
        found = {name: row[name] for name in (*PRODUCT_FIELDS[:-1], "gone") if row.get(name) is not None}
        found |= {ATTRIBUTE + name: text for name, text in (row.get("attributes") or {}).items()}
        wrong += found != {name: value for name, value in known.items() if value is not None}
    return wrong


def differing(real: dict[bytes, bytes], expected: dict[bytes, bytes]) -> tuple[int, int]:
    """Return (rows compared, rows that differ).

    Sums and histories do not depend on how partitions interleaved. Two things list what came
    in the order it came, so they are compared as sets: the dedupe window and the item feed.
    Of duplicates there may be more than were sent: a producer repeats what the log has not confirmed.
    """
    found = [_differing_of(prefix, real, expected) for prefix in PREFIXES]
    return sum(compared for compared, _ in found), sum(wrong for _, wrong in found)


def _differing_of(prefix: bytes, real: dict[bytes, bytes], expected: dict[bytes, bytes]) -> tuple[int, int]:
    ordered = (prefix + b"d:", prefix + b"f:")
    passing = (keys.owner(prefix), keys.positions(prefix), keys.redo(prefix), keys.anchor_ready(prefix))
    skipped = (*ordered, prefix + b"v:", prefix + b"redo:")

    def kept(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
        mine = {key: value for key, value in rows.items() if key.startswith(prefix)}
        return {key: value for key, value in mine.items() if key not in passing and not key.startswith(skipped)}

    left, right = kept(real), kept(expected)
    names = set(left) | set(right)
    wrong = int(_take_duplicates(prefix, left) < _take_duplicates(prefix, right))
    wrong += sum(left.get(key) != right.get(key) for key in names)
    for one in ordered:
        wrong += _contents(real, one) != _contents(expected, one)
    return len(names) + len(ordered), wrong


def _take_duplicates(prefix: bytes, rows: dict[bytes, bytes]) -> int:
    """Return how many duplicates the lane's globals count, and let them count none, nor entries of the feed.

    The feed names an item for its first event and each change of its product: once less where a product came first.
    """
    totals = lane_rows.decode_globals(rows.get(keys.lane_globals(prefix)))
    found = int(totals[lane_rows.DUPLICATES])
    totals[lane_rows.DUPLICATES] = totals[lane_rows.FEED] = 0
    if keys.lane_globals(prefix) in rows:
        rows[keys.lane_globals(prefix)] = lane_rows.encode_globals(totals)
    return found


def _contents(rows: dict[bytes, bytes], prefix: bytes) -> set[Any]:
    """Return the ids of dedupe segments (their first number is a place), or the names of the feed."""
    chunks = [value for key, value in rows.items() if key.startswith(prefix)]
    if prefix.endswith(b"d:"):
        return {number for chunk in chunks for number in np.frombuffer(chunk, np.uint64)[1:].tolist()}
    return {name for chunk in chunks for name in orjson.loads(chunk)}


def events_seen(rows: dict[bytes, bytes]) -> dict[bytes, int]:
    """Return the history events of every user."""
    found = {key: value for key, value in rows.items() if key.startswith(tuple(prefix + b"u:" for prefix in PREFIXES))}
    users = empty_users(len(found))
    decode_users(list(found.values()), np.arange(len(found)), users)
    return dict(zip(found, users["seen"].tolist(), strict=True))
