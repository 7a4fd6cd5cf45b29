"""What answers cost, by size of the shop and number of lanes, or by kind of request.

    tests/bench_answers.py [--kinds] [--changes] [--lanes 1 2 4]

Rows as a long past would leave them go straight into a Redis of its own; then batches of 16 answers are made in this
process (no HTTP), with rules, exclusions and an anchor, and their CPU time is counted. Each size is a process. Every
lane has a row of every item, with the pairs and counts that its share of the users left.
"""

import argparse
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from headrace.bench.histories import zipf
from headrace.bench.serve import BOOK
from headrace.settings import Settings
from schemas.events import Kind
from schemas.ids import MEASURING_KEY, hash_id, use_key
from serving.app.warm_up import warm_up
from serving.engine.metrics import STAGES
from serving.engine.recommender import Recommender
from serving.rendering.answer_bytes import answer_json
from serving.request.requests import RecommendRequest
from serving.retrieval.build import build_index
from serving.retrieval.vector_index import VectorIndex
from serving.rules.acting import Compiled
from serving.rules.book_store import to_book
from serving.snapshot.top_lists import TopList
from state.anchor import Anchor
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.rows.item_rows import FLAG_LISTED, MAX_NEIGHBOURS, PAIR_UNIT, empty_items, pack_items
from state.rows.lane_rows import COUNT, EVENTS, SESSIONS
from state.rows.user_rows import MAX_HISTORY, empty_users, pack_users
from state.store.redis_store import RedisStore
from state.store.row_block import RowBlock, RowSet

CHUNK, BATCH, D, BATCHES, REPEATS, CHANGES = 20_000, 16, 64, 150, 5, 40
MEAN_HISTORY, PAIR_TAIL = 12, 1.2
NO_FILE = {"appendonly": "no", "save": ""}


def fill(store, prefix, users, items, rng, lanes):
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, len(users), CHUNK):
        ids = users[first : first + CHUNK]
        rows = empty_users(len(ids))
        rows["n"][:] = np.minimum(rng.geometric(1 / MEAN_HISTORY, len(ids)), MAX_HISTORY)
        rows["seen"][:] = rows["n"]
        rows["item"][:] = items[zipf(rng, len(items), 1.05, len(ids) * MAX_HISTORY)].reshape(len(ids), -1)
        rows["gap_ms"][:], rows["kind"][:], rows["last_ms"][:] = 600_000, Kind.VIEW, now_ms - 86_400_000
        write(store, RowBlock(keys.user_prefix(prefix), ids, *pack_users(rows, np.arange(len(ids)))))
    for first in range(0, len(items), CHUNK):
        ids = items[first : first + CHUNK]
        rows = empty_items(len(ids))
        rows["n"][:], rows["flags"][:], rows["support"][:] = MAX_NEIGHBOURS, FLAG_LISTED, 100 // lanes
        rows["count"][:] = 100 // lanes
        near = items[zipf(rng, len(items), 1.05, len(ids) * MAX_NEIGHBOURS)].reshape(len(ids), -1)
        rows["neighbour"][:] = np.sort(near, axis=1)
        rows["weight"][:] = np.clip(PAIR_UNIT / lanes * rng.pareto(PAIR_TAIL, rows["weight"].shape), 1, 60_000)
        rows["total"][:] = 1.2 * rows["weight"].sum(axis=2)
        write(store, RowBlock(keys.item_prefix(prefix), ids, *pack_items(rows, np.arange(len(ids)))))


KINDS = {
    "known user": lambda n: RecommendRequest(user=f"user-{n}", count=20, exclude=["item-1", "item-2"]),
    "unknown user": lambda n: RecommendRequest(user=f"nobody-{n}", count=20),
    "a category only": lambda n: RecommendRequest(user=f"user-{n}", count=20, filters={"category": "department-5"}),
    "product page": lambda n: RecommendRequest(items=[f"item-{n}"], placement="product"),
    "basket page": lambda n: RecommendRequest(items=[f"item-{n}", f"item-{n + 7}"], placement="basket"),
    "popular": lambda n: RecommendRequest(user=f"user-{n}", strategy="popular", count=20),
    "email, varied": lambda n: RecommendRequest(user=f"user-{n}", placement="email"),
    "explored": lambda n: RecommendRequest(user=f"user-{n}", count=20, explore=2),
    "explained": lambda n: RecommendRequest(user=f"user-{n}", count=20, explain=True),
}
"""What may be asked for, by a number of a user or an item."""


def write(store, block):
    rows = RowSet()
    rows.blocks.append(block)
    store.write(rows)


@contextmanager
def filled(n_users, n_items, lanes=1):
    """Yield a recommender over rows as a long past would leave them."""
    rng = np.random.default_rng(7)
    users = np.array([hash_id(f"user-{n}") for n in range(n_users)], np.uint64)
    ids = [f"item-{n}" for n in range(n_items)]
    items = np.array([hash_id(one) for one in ids], np.uint64)
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder), options=NO_FILE) as server:
        store = RedisStore(server.url)
        recommender = Recommender(store, Settings(data_dir=Path(folder), n_lanes=lanes), "bench")
        shop = recommender.shop
        for lane, prefix in enumerate(shop.prefixes):
            fill(store, prefix, users[users % lanes == lane], items, rng, lanes)
        shop.catalogue.take(ids, items, [
            {"category": f"department-{n % 20}/shelf-{n % 200}", "brand": f"brand-{n % 500}"} for n in range(n_items)
        ])  # fmt: skip
        shop.totals[[SESSIONS, EVENTS, COUNT]] = 20 * n_items, 100 * n_items, 100 * n_items
        order = np.argsort(items)
        factors = rng.normal(0, 0.1, (n_items, D)).astype(np.float32)
        embedding = rng.normal(0, 1, (n_items, D)).astype(np.float32)
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
        anchor = Anchor(
            "bench", [], items[order], factors, np.eye(D, dtype=np.float32), 2.0, np.ones(32),
            embedding=embedding.astype(np.float16),
        )  # fmt: skip
        shop.subscribe()
        recommender.set_index(VectorIndex(anchor, build_index(factors)[0]))
        shop.rules = Compiled(to_book(BOOK), 1)
        warm_up()
        gc.collect()
        gc.freeze()  # as a server does
        yield recommender
        store.close()


def measure(n_users, n_items, lanes):
    rng = np.random.default_rng(9)
    with filled(n_users, n_items, lanes) as recommender:
        asked = [
            [RecommendRequest(user=f"user-{u}", count=20, exclude=["item-1", "item-2"]) for u in who]
            for who in zipf(rng, n_users, 0.8, BATCHES * BATCH).reshape(-1, BATCH).tolist()
        ]
        seconds = [run(recommender, asked) for _ in range(REPEATS + 1)][1:]
        n, stages = BATCHES * BATCH, {name: counter._value.get() for name, counter in STAGES.items()}
        run(recommender, asked)
        by_stage = {name: (counter._value.get() - stages[name]) / n * 1e6 for name, counter in STAGES.items()}
    said = ", ".join(f"{name} {us:.0f}" for name, us in by_stage.items())
    middle, least = np.median(seconds) / n * 1e6, min(seconds) / n * 1e6
    print(f"{n_users:>12,} {n_items:>10,} {lanes:>6} {middle:>8.0f} {least:>8.0f}   {said}", flush=True)


def measure_kinds(n_users, n_items):
    """Print what each kind of request costs."""
    rng = np.random.default_rng(9)
    with filled(n_users, n_items) as recommender:
        shop = recommender.shop
        shop.set_popular(TopList(shop.catalogue.hashes()[:500], -np.arange(500) / 10, np.zeros(500)))
        for kind, request in KINDS.items():
            numbers = zipf(rng, min(n_users, n_items - 7), 0.8, BATCHES * BATCH).reshape(-1, BATCH).tolist()
            asked = [[request(n) for n in batch] for batch in numbers]
            seconds = [run(recommender, asked) for _ in range(REPEATS + 1)]
            us = np.array(seconds) / (BATCHES * BATCH) * 1e6
            print(f"{kind:>16} {np.median(us[1:]):>8.0f} {us[1:].min():>8.0f} {us[0]:>8.0f}", flush=True)


def measure_changes(n_users, n_items):
    """Print what one list and one vector search under the rules take, right after a product has changed, and again."""
    with filled(n_users, n_items) as recommender:
        shop, times = recommender.shop, {}
        hashes, request = shop.catalogue.hashes(), RecommendRequest(user="user-1", count=20)
        vectors = np.random.default_rng(9).normal(0, 1, (CHANGES, 2, D)).astype(np.float32)  # none comes twice
        for n in range(CHANGES):
            for change in (False, True):
                if change:
                    product = {"category": "department-1/shelf-2", "brand": "brand-3", "stock": n}
                    shop.catalogue.take([f"item-{n}"], hashes[n : n + 1], [product])
                began = time.perf_counter()
                recommender.recommend([request], time.time_ns() // 1_000_000)
                listed = time.perf_counter()
                selection = shop.selections.of(True, None, shop.rules.acting(lambda: None), shop.rules.version)
                shop.index.search(vectors[n, int(change)], 60, selection)
                searched = time.perf_counter()
                shop.index.search(vectors[n, int(change)], 60, selection)
                again = time.perf_counter() - searched
                times.setdefault(change, []).append((listed - began, searched - listed, again))
    calm, after = (np.median(times[change], axis=0) * 1000 for change in (False, True))
    figures = (calm[0], after[0], calm[1], after[1], calm[2])
    print(f"{n_items:>12,}", *(f"{ms:>8.3f}" for ms in figures), flush=True)


def run(recommender, asked):
    started = time.process_time()
    for batch in asked:
        answers = recommender.recommend(batch, time.time_ns() // 1_000_000)
        for request, answer in zip(batch, answers, strict=True):
            assert len(answer.items) >= (request.count or 1)
            answer_json(answer)
    return time.process_time() - started


def main():
    use_key(MEASURING_KEY)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1])
    parser.add_argument("--kinds", action="store_true", help="by kind of request instead of size, for the first size")
    parser.add_argument("--changes", action="store_true", help="one list and one search after a product has changed")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.users[0], given.items[0], given.lanes[0])
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{REPEATS} repeats of {BATCHES} batches of {BATCH}; {MEAN_HISTORY} events a user (mean), "
          f"{MAX_NEIGHBOURS} neighbours an item with pairs of a Pareto tail of {PAIR_TAIL}")  # fmt: skip
    if given.changes:
        print(f"milliseconds, median of {CHANGES}, one thread")
        print(f"{'items':>12} {'list':>8} {'changed':>8} {'search':>8} {'changed':>8} {'again':>8}")
        for n_items in given.items:
            measure_changes(given.users[0], n_items)
        return
    if given.kinds:
        print(f"{given.users[0]:,} users, {given.items[0]:,} items")
        print(f"{'request':>16} {'CPU µs':>8} {'least':>8} {'first':>8}")
        measure_kinds(given.users[0], given.items[0])
        return
    print(f"{'users':>12} {'items':>10} {'lanes':>6} {'CPU µs':>8} {'least':>8}   wall µs by stage")
    middle = sorted(given.items)[len(given.items) // 2]
    sizes = [(users, middle) for users in given.users] + [(given.users[0], n) for n in given.items if n != middle]
    for (users, items), lanes in product(sizes, given.lanes):
        size = ["--users", str(users), "--items", str(items), "--lanes", str(lanes)]
        subprocess.run([sys.executable, __file__, "--one", *size], check=True)


if __name__ == "__main__":
    main()
