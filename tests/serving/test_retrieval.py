import faiss
import numpy as np

from serving.new_items import NewItems
from serving.retrieval import VectorIndex, build_index
from state.anchor import Anchor
from state.item_rows import empty_items
from state.slot_map import SlotMap

D = 16


def anchor_of(n):
    """Items in clusters, as those of a shop are."""
    rng = np.random.default_rng(3)
    centres = rng.normal(0, 1, (40, D))
    factors = (centres[rng.integers(40, size=n)] + rng.normal(0, 0.4, (n, D))).astype(np.float32)
    hashes = np.arange(1, n + 1, dtype=np.uint64)
    return Anchor("a1", [f"i{k}" for k in range(n)], hashes, factors, np.eye(D, dtype=np.float32), 1.0, np.ones(32))


def test_a_small_index_is_exact_and_a_large_one_keeps_its_measured_recall():
    anchor = anchor_of(4_000)
    exact, figures = build_index(anchor.whitened)
    assert figures == {"index_recall@20": 1.0}
    approximate, figures = build_index(anchor.whitened, exact_up_to=1_000)
    assert figures["index_recall@20"] >= 0.95
    assert figures["index_probes"] < figures["index_lists"]
    indexes = [VectorIndex(anchor, faiss.deserialize_index(np.frombuffer(b, np.uint8))) for b in (exact, approximate)]
    rng = np.random.default_rng(4)
    overlap = []
    for row in rng.choice(4_000, 100):
        query = anchor.whitened[row] + rng.normal(0, 0.2, D).astype(np.float32)
        truth = set(np.argsort(-(anchor.whitened @ query))[:20] + 1)
        found = [{item for item, _ in index.search(query, 20)} for index in indexes]
        assert found[0] == truth
        overlap.append(len(found[1] & truth) / 20)
    assert np.mean(overlap) >= 0.93


def test_a_new_item_is_found_through_its_neighbours_and_one_without_is_not():
    anchor = anchor_of(100)
    new, known, stranger = 10_001, 7, 10_002
    rows, slots = empty_items(4), SlotMap(4)
    (slot, _) = slots.assign(np.array([new, stranger], np.uint64))
    rows.n[slot] = 2
    rows.neighbour[slot, :2], rows.weight[slot, 0, :2] = [known, stranger], [100, 50]
    items = NewItems(anchor)
    items.watch(np.array([new, known, stranger], np.uint64))
    assert len(items) == 2  # the anchor has the known one
    items.renew(items.due(), rows, slots)
    query = anchor.whitened[known - 1]
    assert items.search(query, 5) == [(new, np.float32(query @ query))]
    exact = VectorIndex(anchor, faiss.deserialize_index(np.frombuffer(build_index(anchor.whitened)[0], np.uint8)))
    exact.new_items.watch(np.array([new], np.uint64))
    exact.new_items.renew(np.array([new], np.uint64), rows, slots)
    assert new in [item for item, _ in exact.search(query, 20)]


def test_every_new_item_gets_its_turn():
    items = NewItems(anchor_of(10))
    items.watch(np.arange(1000, 1500, dtype=np.uint64))
    seen = np.concatenate([items.due() for _ in range(3)])
    assert set(seen.tolist()) == set(range(1000, 1500))


def test_a_filter_goes_into_the_search_exact_and_approximate():
    anchor = anchor_of(4_000)
    allowed = np.arange(1, 4_001, 80, np.uint64)  # 50 of them
    for limit in (10_000, 1_000):
        data, _ = build_index(anchor.whitened, exact_up_to=limit)
        index = VectorIndex(anchor, faiss.deserialize_index(np.frombuffer(data, np.uint8)))
        query = anchor.whitened[5]
        found = [item for item, _ in index.search(query, 20, allowed)]
        scores = anchor.whitened @ query
        assert found == sorted(allowed.tolist(), key=lambda item: -scores[item - 1])[:20]
