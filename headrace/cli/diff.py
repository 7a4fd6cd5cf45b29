"""`headrace diff`: how far two generations agree."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from serving.app.follower import open_recommender
from serving.request.requests import RecommendRequest
from serving.snapshot.item_cache import ItemCache
from state.generations import Generation, UnknownGeneration, get_generation
from state.rows import keys
from state.rows.item_rows import ItemRows
from state.rows.lane_rows import ALL, decode_scope, scope_hash
from state.store.changes import NoChanges
from state.store.contract import Store, StoreUnavailable
from state.store.redis_store import RedisStore

CHUNK = 2_000
TOP = 20
SESSION_ITEMS = 5
COUNTERS = ("support", "count", "total", "kinds", "repeat")


def _hashes(store: Store, generation: Generation, kind: bytes) -> set[int]:
    prefixes = [prefix + kind for prefix in generation.prefixes]
    return {int(key[-16:], 16) for prefix in prefixes for chunk in store.scan(prefix) for key in chunk}


def _chunks(hashes: set[int]) -> Iterator[list[int]]:
    ordered = sorted(hashes)
    yield from (ordered[i : i + CHUNK] for i in range(0, len(ordered), CHUNK))


def _user_rows(store: Store, generation: Generation, users: list[int]) -> list[bytes | None]:
    prefixes = generation.prefixes
    return store.read([keys.user(prefixes[user % len(prefixes)], user) for user in users])


def _item_rows(store: Store, generation: Generation, items: list[int]) -> tuple[ItemRows, Any]:
    """Return the rows of the items with their lanes added up, and their slots."""
    cache = ItemCache(len(items), generation.prefixes, NoChanges())
    ids = np.array(items, np.uint64)
    cache.ensure(store, ids, 1, 0)
    return cache.rows, cache.slots.find(ids)


def _top(rows: ItemRows, slot: int) -> set[int]:
    n = int(rows["n"][slot])
    weight = rows["weight"][slot, :, :n].sum(axis=0)
    return set(rows["neighbour"][slot, :n][np.argsort(-weight.astype(np.int64), kind="stable")[:TOP]].tolist())


def _overlap(left: set[int], right: set[int]) -> float:
    return len(left & right) / max(len(left), len(right)) if left or right else 1.0


def _scope(store: Store, generation: Generation) -> set[int]:
    """Return the most popular items of the shop; an item counts as in the lane where it is most popular."""
    best: dict[int, float] = {}
    for value in store.read([keys.scope(prefix, scope_hash(ALL, 0)) for prefix in generation.prefixes]):
        scope = decode_scope(value)
        for item, long in zip(scope.item.tolist(), scope.long.tolist(), strict=True):
            best[item] = max(best.get(item, long), long)
    return set(sorted(best, key=lambda item: (-best[item], item))[:TOP])


def compare(store: RedisStore, settings: Settings, left: str, right: str, sample: int) -> dict[str, Any]:
    """Return the figures of the comparison; raises UnknownGeneration."""
    pair = [get_generation(store, name) for name in (left, right)]
    found: dict[str, Any] = {"left": left, "right": right}
    with progress_bar("rows") as bar:
        for kind, name in ((b"u:", "users"), (b"i:", "items")):
            hashes = [_hashes(store, generation, kind) for generation in pair]
            both = hashes[0] & hashes[1]
            task = bar.add_task(f"comparing {name}", total=len(both), rate=0.0)
            differing = 0
            for chunk in _chunks(both):
                if kind == b"u:":
                    rows = [_user_rows(store, generation, chunk) for generation in pair]
                    differing += sum(a != b for a, b in zip(*rows, strict=True))
                else:
                    differing += _differing_items(store, pair, chunk)
                bar.advance(task, len(chunk))
            only = [len(hashes[0] - both), len(hashes[1] - both)]
            found[name] = {
                "both": len(both), "only_left": only[0], "only_right": only[1], "differing": differing,
                "share_differing": (differing + sum(only)) / max(len(hashes[0] | hashes[1]), 1),
            }  # fmt: skip
            if kind == b"i:":
                items = sorted(both)
    rng = np.random.default_rng(11)
    chosen = [items[k] for k in rng.permutation(len(items))[:sample].tolist()]
    found["neighbour_overlap@20"] = _neighbour_overlap(store, pair, chosen) if chosen else None
    found["top_list_overlap@20"] = _overlap(_scope(store, pair[0]), _scope(store, pair[1]))
    found["recommendation_overlap@20"] = _recommendations(store, settings, pair, chosen) if chosen else None
    found["share_differing"] = max(found["users"]["share_differing"], found["items"]["share_differing"])
    return found


def _differing_items(store: Store, pair: list[Generation], items: list[int]) -> int:
    (a, at), (b, bt) = (_item_rows(store, generation, items) for generation in pair)
    same = np.ones(len(items), bool)
    for name in (*COUNTERS, "pop", "pop_epoch", "neighbour", "weight"):
        left, right = a[name][at], b[name][bt]
        same &= (left == right).reshape(len(items), -1).all(axis=1)
    return int((~same).sum())


def _neighbour_overlap(store: Store, pair: list[Generation], items: list[int]) -> float:
    (a, at), (b, bt) = (_item_rows(store, generation, items) for generation in pair)
    return float(np.mean([_overlap(_top(a, s), _top(b, t)) for s, t in zip(at.tolist(), bt.tolist(), strict=True)]))


def _recommendations(store: RedisStore, settings: Settings, pair: list[Generation], items: list[int]) -> float:
    """Return the overlap of the answers to anonymous sessions of a few of the items each."""
    now_ms = time.time_ns() // 1_000_000
    answers = []
    for generation in pair:
        recommender = open_recommender(store, settings, generation.name)
        recommender.refresh(now_ms)
        names = [known.item for item in items if (known := recommender.shop.catalogue.get(item))]
        requests = [
            RecommendRequest(items=names[i : i + SESSION_ITEMS], count=TOP) for i in range(0, len(names), SESSION_ITEMS)
        ]
        found = []
        for i in range(0, len(requests), 16):
            found += recommender.recommend(requests[i : i + 16], now_ms)
        answers.append([{hash(one.item) for one in answer.items} for answer in found])
    return float(np.mean([_overlap(a, b) for a, b in zip(*answers, strict=False)]))


def run(settings: Settings, left: str, right: str, sample: int, threshold: float, json: bool) -> int:
    """Print the comparison; return FAILED when more than `threshold` of the rows differ."""
    try:
        store = open_store(settings)
        found = compare(store, settings, left, right, sample)
        store.close()
    except UnknownGeneration as error:
        err.print(str(error), markup=False)
        return FAILED
    except StoreUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(found)
    else:
        table = Table("figure", "value", title=f"{left} against {right}")
        for key, value in found.items():
            shown = ", ".join(f"{k} {v:,.4g}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key, shown)
        Console().print(table)
    return OK if found["share_differing"] <= threshold else FAILED


def command(
    left: str,
    right: str,
    sample: Annotated[int, typer.Option(help="Items and sessions compared in depth.")] = 500,
    threshold: Annotated[float, typer.Option(help="Largest share of differing rows that passes.")] = 0.0,
    json: Json = False,
) -> None:
    """Compare two generations; exit code 1 when more than --threshold of their rows differ."""
    raise typer.Exit(run(read_settings(), left, right, sample, threshold, json))
