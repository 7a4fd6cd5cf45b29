"""Before a server says that it is ready it has compiled what requests need."""

import pickle
import subprocess
import sys

import faiss
import numpy as np
import pytest
from helpers.compiled_kernels import COMPILED
from helpers.fold_oracle import Event
from helpers.serving_rows import DAY, NOW, fold_into, product, shop_events
from helpers.trees import some_trees

from schemas.events import Kind
from schemas.ids import hash_id
from serving.retrieval.build import build_index
from serving.scoring.parameters import DEFAULT
from serving.scoring.tree_ensemble import written_down
from state.anchor import Anchor, save_anchor
from state.rows import keys
from state.rows.vector_rows import encode_vector
from state.store.contract import MemoryStore

ASK_FOR_EVERYTHING = (
    COMPILED
    + """
import pickle
from itertools import product
from pathlib import Path
from typing import get_args
from serving.request.requests import RecommendRequest, Strategy
from serving.retrieval.vector_index import VectorIndex
from serving.http.rules_api import trial
from serving.engine.recommender import Recommender
from serving.app.warm_up import warm_up
from state.id_key import use_id_key
from headrace.settings import Settings
from state.store.contract import MemoryStore

use_id_key(Settings())
warm_up()
before = compiled()
rows, now, anchor = pickle.load(sys.stdin.buffer)
rules = [
    {"id": "b", "action": "boost", "where": "price > 30", "factor": 3.0, "placements": ["search"]},
    {"id": "c", "action": "cap", "by": "brand", "most": 1, "placements": ["search", "email"]},
    {"id": "p", "action": "pin", "items": ["cup"], "placements": ["basket"]},
]
more = [
    {}, {"exclude": ["tea"]}, {"repeat": "exclude"}, {"exclude_purchased": True}, {"explain": True}, {"explore": 1},
    {"filters": {"min_price": 1}}, {"filters": {"category": "c"}}, {"country": "DE"}, {"lang": "de"},
    *({"diversity": 0.5, "diversity_method": method} for method in ("mmr", "dpp", "calibrated")),
    *({"placement": name} for name in ("home", "product", "basket", "search", "email")),
    *({"strategy": name} for name in get_args(Strategy)),
]
who = [{"user": "ann"}, {"user": "bob"}, {"user": "x"}, {"items": ["tea", "cup"]}, {"user": "v1", "items": ["old"]}, {}]
for n_lanes in (1, 2):
    store = MemoryStore()
    store.write(rows)
    recommender = Recommender(store, Settings(server_cached_items=1000, show_unknown_items=True, n_lanes=n_lanes), "g1")
    recommender.refresh(now)
    recommender.set_index(VectorIndex.load(Path(anchor)))
    recommender.refresh(now)
    for one, two in product(who, more):
        for answer in recommender.recommend([RecommendRequest(count=3, **one, **two)], now, trial({"rules": rules})):
            answer.items.to_json(), answer.items.to_message()
    recommender.similar_items("tea", 3, now), [recommender.popular(scope, "c", 3, now) for scope in ("category", "all")]
print(*sorted(compiled() - before), sep="\\n", end="")
"""
)


def anchor_of(folder, names):
    """Return the folder of an anchor as a night writes it: with embedding, fitted numbers and trees."""
    rng, hashes = np.random.default_rng(1), np.array([hash_id(name) for name in names], np.uint64)
    order = np.argsort(hashes)
    factors = rng.normal(0, 1, (len(names), 4)).astype(np.float32)
    anchor = Anchor(
        "a1", [names[k] for k in order], hashes[order], factors, np.eye(4, dtype=np.float32), 2.0, np.ones(32),
        factors.astype(np.float16), DEFAULT._asdict(), written_down(some_trees()),
    )  # fmt: skip
    index = build_index(factors)[0]
    return save_anchor(folder, anchor, lambda path: faiss.write_index(index, str(path)), {}, {})


@pytest.mark.process
def test_requests_compile_nothing_any_more(tmp_path):
    store = MemoryStore()
    facts = {"category": "c", "brand": "b", "stock": 3}
    products = [product("tea", "Green tea", price=5.0, **facts), product("cup", "Cup", price=40.0)]
    fold_into(store, [*shop_events(), Event("bob", "cup", NOW - DAY, Kind.DISLIKE)], products)
    store.rows[keys.vector(keys.prefix("g1", 0), "a1", hash_id("bob"))] = encode_vector(np.ones(4, np.float32))
    anchor = anchor_of(tmp_path, ["tea", "cup", *(f"other{n}" for n in range(6))])
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_EVERYTHING], input=pickle.dumps((store.rows, NOW, str(anchor))),
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.stdout.decode(), done.returncode) == ("", 0), done.stderr.decode()
