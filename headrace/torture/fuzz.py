"""Damaged messages by the million, through the decoder and a whole lane, good ones between them."""

import random
import time
from collections import Counter
from typing import Any

import numpy as np

from flows.fold.lane import Lane
from flows.settings import lane_settings
from headrace.console import progress_bar
from headrace.torture.reference import batch_of
from headrace.torture.stage import FOLD
from schemas.avro_decoder import Limits, decode
from schemas.json_events import encode, event_from_json
from schemas.registry import FolderRegistry
from state.store.contract import MemoryStore

BATCH = 2_000
GOOD_SHARE = 0.5
NOW_MS = 1_760_000_000_000
PLACES = ("message", "item_start")
"""Columns that say where a row came from, not what it says."""

SAMPLES: tuple[dict[str, Any], ...] = (
    {"type": "view", "user": "u{n}", "item": "i{n}", "price": 3.5, "category": "a/b", "brand": "x", "country": "DE"},
    {"type": "search", "user": "u{n}", "query": "green tea"},
    {"type": "add_to_cart", "user": "u{n}", "item": "i{n}", "context": {"page": "home"}},
    {"type": "purchase", "user": "u{n}", "lines": [{"item": "i{n}", "quantity": 2, "price": 9.0}, {"item": "j"}]},
    {"type": "rating", "user": "u{n}", "item": "i{n}", "stars": 4},
    {"type": "product", "item": "i{n}", "title": "Tea", "price": 2.0, "stock": 4},
    {"type": "product", "item": "i{n}", "stock": 0, "brand": None, "attributes": {"organic": "yes", "origin": None}},
    {"type": "product", "item": "i{n}", "title": "Tea", "replace": True},
    {"type": "product_gone", "item": "j"},
    {"type": "impression", "request_id": "r{n}", "user": "u{n}", "position": 1, "item": "i{n}", "source": "popular"},
    {"type": "erasure", "user": "gone{n}"},
)


def _sample_messages(n: int) -> list[tuple[str, bytes]]:
    registry, found = FolderRegistry(), []
    for k in range(n):
        for number, sample in enumerate(SAMPLES):
            event = {key: value.format(n=k) if isinstance(value, str) else value for key, value in sample.items()}
            event |= {"ts_ms": NOW_MS - k * 1000}
            if event["type"] not in ("product", "product_gone"):
                event["event_id"] = f"e{k}-{number}"
            topic, record, _ = event_from_json(event, NOW_MS)
            found.append((topic, encode(topic, record, registry)))
    return found


def _damaged(value: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a few of them changed, cut off, repeated or put in."""
    data = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data)) if data else 0
        how = rng.randrange(5)
        if how == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1 and data:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif how == 2:
            del data[at:]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 30)))
        elif data:
            data += data[at : at + 20]
    return bytes(data)


def fuzz(n_messages: int, seed: int) -> dict[str, Any]:
    """Decode and fold `n_messages`, half of them damaged; return what became of them.

    `good_refused` and `good_changed` count good messages that a damaged neighbour
    cost or altered; both must be 0. Nothing may be raised.
    """
    rng, registry = random.Random(seed), FolderRegistry()
    samples, limits = _sample_messages(50), Limits()
    store = MemoryStore()
    lane = Lane(lane_settings(FOLD.model_copy(update={"max_cached_users": 50_000, "max_cached_items": 50_000})),
                store, "fuzz")  # fmt: skip
    lane.open()
    reasons: Counter[str] = Counter()
    good_refused = good_changed = done = n_damaged = refused = 0
    started = time.perf_counter()
    with progress_bar("messages") as bar:
        task = bar.add_task("damaged messages", total=n_messages, rate=0.0)
        while done < n_messages:
            chosen = [rng.choice(samples) for _ in range(min(BATCH, n_messages - done))]
            good = [rng.random() < GOOD_SHARE for _ in chosen]
            messages = [(t, v) if ok else (t, _damaged(v, rng)) for (t, v), ok in zip(chosen, good, strict=True)]
            raw = batch_of(messages, done)
            decoded = decode(raw, registry, NOW_MS, limits)
            alone = decode(
                batch_of([m for m, ok in zip(messages, good, strict=True) if ok], 0), registry, NOW_MS, limits
            )
            for one in decoded.bad:
                reasons[one.reason] += 1
                good_refused += good[one.message]
            refused += len(decoded.bad)
            among = decoded.interactions[np.array(good)[decoded.interactions["message"]]].copy()
            expected = alone.interactions.copy()
            for rows in (among, expected):
                for place in PLACES:
                    rows[place] = 0
            good_changed += int(len(among) != len(expected) or among.tobytes() != expected.tobytes())
            changes = lane.apply(decoded, raw)
            store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
            done += len(messages)
            n_damaged += len(messages) - sum(good)
            bar.update(task, completed=done, rate=done / (time.perf_counter() - started))
    return {
        "messages": done, "damaged": n_damaged, "refused": refused, "reasons": dict(reasons),
        "good_refused": good_refused, "good_changed": good_changed, "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
