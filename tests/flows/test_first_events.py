"""Before a flow takes lanes it has compiled what folding needs."""

import subprocess
import sys

import pytest
from helpers.compiled_kernels import COMPILED

FOLD_EVERYTHING = (
    COMPILED
    + """
import random, tempfile
from pathlib import Path
import numpy as np
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from flows.warm_up import warm_up
from schemas.avro_decoder import Limits, decode
from schemas.json_events import encode, event_from_json
from schemas.ids import hash_id, use_key
from schemas.registry import FolderRegistry
from state.anchor import Anchor, load_anchor, save_anchor
from state.store.redo_pieces import commands_of, redo_pieces
from state.store.contract import MemoryStore

use_key(bytes(16))
warm_up()
before = compiled()
rng, registry, now = random.Random(1), FolderRegistry(), 1_800_000_000_000
KINDS = "view click add_to_cart wishlist purchase rating share search remove_from_cart return dislike".split()
names = [f"i{n}" for n in range(100)]

def message(n):
    kind = rng.choice([*KINDS, "product", "product_gone", "erasure"])
    at = now + 40_000 * n - (rng.random() < 0.1) * 3_600_000  # some come too late
    event = {"type": kind, "ts_ms": at}
    if not kind.startswith("product"):
        event |= {"event_id": f"e{n}", "user": f"u{rng.randrange(6)}"}
    if kind not in ("erasure", "search"):
        event["item"] = rng.choice(names)
    if kind in KINDS:
        event["country"] = rng.choice(["DE", "AT"])
    if kind in KINDS and kind != "purchase":
        event |= {"price": 3.0, "category": "c/d", "brand": "b"}
    more = {"rating": {"stars": 2.5}, "product": {"title": "T", "category": "x", "price": 2.0}}
    event |= more.get(kind, {})
    topic, record, key = event_from_json(event, now)
    return Message(topic, key, encode(topic, record, registry), at)

folder = Path(tempfile.mkdtemp())
log = SqliteLog(folder / "log.sqlite")
hashes = np.array([hash_id(name) for name in names], np.uint64)
order = np.argsort(hashes)
factors = np.ones((100, 64), np.float32)
save_anchor(folder, Anchor("a", names, hashes[order], factors, np.eye(64, dtype=np.float32), 2.0, np.ones(32)),
            lambda path: path.touch(), {}, {})
for n_lanes in (1, 2):
    store = MemoryStore()
    lane = Lane(LaneSettings(n_lanes=n_lanes, max_cached_users=8, max_cached_items=250, dedupe_window=2048), store, "g")
    lane.open()
    lane.use_anchors(load_anchor(folder / "a"))
    for n in range(0, 2000, 100):
        log.append([*map(message, range(n, n + 100)), Message("product-views", b"u", b"none of ours", now)])
        while (raw := log.read(lane.positions, rng.choice([1, 1000]), 0)) is not None:
            changes = lane.apply(decode(raw, registry, now + 10**9, Limits()), raw, behind=n % 300 == 0)
            list(changes.rows.commands())
            for piece in redo_pieces(changes.rows):
                commands_of(b"".join(piece), store.read)
            store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        if n % 400 == 0:
            lane.open()
    while lane.owes_vectors:
        lane.write_pending()
    for _ in lane.refold(load_anchor(folder / "a")):
        pass
print(*sorted(compiled() - before), sep="\\n", end="")
"""
)


@pytest.mark.process
def test_events_compile_nothing_any_more():
    done = subprocess.run([sys.executable, "-c", FOLD_EVERYTHING], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
