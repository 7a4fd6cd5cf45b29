import json
import subprocess
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest

from serving.catalogue.catalogue import Catalogue
from serving.retrieval.build import RECALL_AT, build_index, exact_search
from serving.retrieval.new_items import NewItems
from serving.retrieval.vector_index import VectorIndex
from serving.rules.acting import NO_RULES
from serving.rules.item_filter import Selections
from state.anchor import Anchor
from state.rows.item_rows import empty_items
from state.rows.slot_map import SlotMap

D = 16


def anchor_of(n):
    """Items in clusters, as those of a shop are."""
    rng = np.random.default_rng(3)
    centres = rng.normal(0, 1, (40, D))
    factors = (centres[rng.integers(40, size=n)] + rng.normal(0, 0.4, (n, D))).astype(np.float32)
    hashes = np.arange(1, n + 1, dtype=np.uint64)
    return Anchor("a1", [f"i{k}" for k in range(n)], hashes, factors, np.eye(D, dtype=np.float32), 1.0, np.ones(32))


def selling(anchor, catalogue, hashes):
    """Have the catalogue say that the shop has these items and no others; return the selection of them."""
    stock = [{"stock": int(there)} for there in np.isin(anchor.item_hash, hashes)]
    catalogue.take([f"i{k}" for k in range(len(stock))], anchor.item_hash, stock)
    return Selections(catalogue).of(True, None, NO_RULES, 0)


@pytest.fixture(scope="module")
def built():
    """One shop's items as an exact index, an inverted file and a compressed one, with their figures."""
    anchor = anchor_of(4_000)
    sizes = ({}, {"exact_up_to": 1_000}, {"exact_up_to": 1_000, "compress_above": 2_000})
    return anchor, [build_index(anchor.whitened, **size) for size in sizes]


def test_the_kind_follows_from_the_size_and_keeps_its_measured_recall(built):
    anchor, (exact, inverted, compressed) = built
    assert exact[1]["index"] == "exact"
    assert inverted[1]["index"].endswith("Flat")
    assert "fs,Refine(SQ6)" in compressed[1]["index"]
    rng = np.random.default_rng(4)
    rows = rng.choice(4_000, 100)
    queries = anchor.whitened[rows] + rng.normal(0, 0.2, (100, D)).astype(np.float32)
    for index, figures in (exact, inverted, compressed):
        assert figures[f"index_recall@{RECALL_AT}"] >= (0.92 if index is compressed[0] else 0.95)
        search = VectorIndex(anchor, index).search
        overlap = []
        for query in queries:
            truth = set(np.argsort(-(anchor.whitened @ query))[:20] + 1)
            overlap.append(len(set(search(query, 20)[0].tolist()) & truth) / 20)
        assert np.mean(overlap) == 1.0 if index is exact[0] else np.mean(overlap) >= 0.9
    for _, figures in (inverted, compressed):
        assert figures["index_probes"] < figures["index_lists"]


def test_recall_that_cannot_be_reached_does_not_make_a_search_look_everywhere(monkeypatch):
    monkeypatch.setattr("serving.retrieval.build.WANTED_RECALL", 1.1)
    monkeypatch.setattr("serving.retrieval.build.WANTED_COMPRESSED", 1.1)
    factors = anchor_of(4_000).whitened
    for compress_above in (10_000, 100):
        _, figures = build_index(factors, exact_up_to=100, compress_above=compress_above)
        assert figures["index_probes"] < figures["index_lists"]
        assert figures[f"index_recall@{RECALL_AT}"] > 0.9


def test_factors_without_clusters_are_looked_through():
    # A few long ones are the best for everybody, in whatever direction: lists, which go by direction, do not help.
    rng = np.random.default_rng(3)
    factors = (rng.normal(0, 1, (4_000, D)) * rng.pareto(1.0, (4_000, 1))).astype(np.float32)
    index, figures = build_index(factors, exact_up_to=1_000)
    assert figures["index"] == "exact"
    assert index.ntotal == figures["index_items"] < 4_000
    assert figures[f"index_recall@{RECALL_AT}"] >= 0.95
    anchor = replace(anchor_of(4_000), whitened=factors)
    short = np.argsort(np.linalg.norm(factors, axis=1))[: 4_000 - index.ntotal + 300].astype(np.uint64) + 1
    found = VectorIndex(anchor, index).search(factors[5], 20, selling(anchor, Catalogue([b""]), short))[0]
    best = np.argsort(-(factors[short.astype(int) - 1] @ factors[5]))[:20]
    assert found.tolist() == short[best].tolist()  # most of these are not in the index


def same(found, other):
    return all(np.array_equal(a, b) for a, b in zip(found, other, strict=True))


def test_exact_search_in_chunks_is_the_definition(monkeypatch):
    monkeypatch.setattr("serving.retrieval.build.CHUNK", 30)
    vectors = np.random.default_rng(1).normal(0, 1, (100, 8)).astype(np.float32)
    found = exact_search(vectors[:5], vectors, 10)
    assert np.array_equal(found, np.argsort(-(vectors[:5] @ vectors.T), axis=1, kind="stable")[:, :10])


def test_an_index_on_disk_answers_as_the_one_in_memory(built, tmp_path):
    anchor, indexes = built
    for index, _ in indexes:
        faiss.write_index(index, str(tmp_path / "index"))
        mapped = faiss.read_index(str(tmp_path / "index"), faiss.IO_FLAG_MMAP_IFC)
        query = anchor.whitened[5]
        assert same(VectorIndex(anchor, mapped).search(query, 20), VectorIndex(anchor, index).search(query, 20))


def test_similar_items_of_a_large_index_are_those_of_a_small_one(built, monkeypatch):
    anchor, indexes = built
    exact = VectorIndex(anchor, indexes[0][0]).similar(7, 11)
    monkeypatch.setattr("serving.retrieval.vector_index.EXACT_UP_TO", 1_000)
    found = VectorIndex(anchor, indexes[1][0]).similar(7, 11)
    assert len({item for item, _ in found} & {item for item, _ in exact}) >= 8
    assert dict(found)[exact[0][0]] == pytest.approx(exact[0][1], abs=1e-5)


def test_a_new_item_is_found_through_its_neighbours_and_one_without_is_not():
    anchor = anchor_of(100)
    new, known, stranger = 10_001, 7, 10_002
    rows, slots = empty_items(4), SlotMap(4)
    (slot, _) = slots.assign(np.array([new, stranger], np.uint64))
    rows["n"][slot] = 2
    rows["neighbour"][slot, :2], rows["weight"][slot, 0, :2] = [known, stranger], [100, 50]
    items = NewItems(anchor)
    items.watch(np.array([new, known, stranger], np.uint64))
    assert len(items) == 2  # the anchor has the known one
    items.renew(items.due(), rows, slots)
    query = anchor.whitened[known - 1]
    assert same(items.search(query, 5), (np.array([new]), np.array([query @ query])))
    exact = VectorIndex(anchor, build_index(anchor.whitened)[0])
    exact.new_items.watch(np.array([new], np.uint64))
    exact.new_items.renew(np.array([new], np.uint64), rows, slots)
    assert new in exact.search(query, 20)[0]


def test_many_new_items_are_found_by_their_factors():
    anchor = anchor_of(100)
    new = np.arange(1_000, 1_040, dtype=np.uint64)
    rows, slots = empty_items(64), SlotMap(64)
    at = slots.assign(new)
    rows["n"][at], rows["neighbour"][at, 0], rows["weight"][at, 0, 0] = 1, np.arange(1, 41), 10
    items = NewItems(anchor)
    items.watch(new)
    for _ in range(2):
        for some in np.array_split(new, 7):
            items.renew(some, rows, slots)
    query = anchor.whitened[3]
    scores = anchor.whitened[:40] @ query
    best = np.argsort(-scores)[: (scores > 0).sum()]
    found = items.search(query, 40)
    assert found[0].tolist() == new[best].tolist()
    assert np.allclose(found[1], scores[best], rtol=1e-5)


def test_every_new_item_gets_its_turn():
    items = NewItems(anchor_of(10))
    items.watch(np.arange(1000, 1500, dtype=np.uint64))
    seen = np.concatenate([items.due() for _ in range(3)])
    assert set(seen.tolist()) == set(range(1000, 1500))


def test_a_filter_goes_into_the_search_of_every_kind(built):
    anchor, indexes = built
    allowed = np.arange(1, 4_001, 80, np.uint64)  # 50 of them
    query = anchor.whitened[5]
    scores = anchor.whitened @ query
    best = sorted(allowed.tolist(), key=lambda item: -scores[item - 1])[:20]
    passing = selling(anchor, Catalogue([b""]), allowed)
    for index, _ in indexes:
        found = VectorIndex(anchor, index).search(query, 20, passing)[0].tolist()
        if isinstance(index, faiss.IndexRefine):  # scores of 6 bits: neighbours may change places
            assert len(set(found) & set(best)) >= 19
            assert len(found) == 20
        else:
            assert found == best


def test_a_wide_filter_is_searched_in_the_index_and_an_unlucky_one_exactly(built, monkeypatch):
    monkeypatch.setattr("serving.retrieval.vector_index.EXACT_AMONG", 100)
    anchor, indexes = built
    lengths = np.linalg.norm(anchor.whitened, axis=1)
    for allowed in (np.arange(1, 4_001, 4, np.uint64), np.argsort(lengths)[:300].astype(np.uint64) + 1):
        query = anchor.whitened[5]
        scores = anchor.whitened[allowed.astype(int) - 1] @ query
        best, passing = set(allowed[np.argsort(-scores)[:20]].tolist()), selling(anchor, Catalogue([b""]), allowed)
        for index, _ in indexes:
            found = VectorIndex(anchor, index).search(query, 20, passing)[0].tolist()
            assert len(found) == 20
            assert set(found) <= set(allowed.tolist())
            assert len(set(found) & best) >= 18


def test_more_items_than_the_lists_probed_hold_are_found_in_the_others(built, monkeypatch):
    monkeypatch.setattr("serving.retrieval.vector_index.EXACT_AMONG", 100)
    anchor, (_, (inverted, _), (compressed, _)) = built
    allowed = np.arange(1, 4_001, 2, np.uint64)
    for index in (inverted, compressed):
        monkeypatch.setattr(faiss.extract_index_ivf(index), "nprobe", 1)
        search = VectorIndex(anchor, index)
        monkeypatch.setattr(
            "serving.retrieval.filter_bitmap.FilterBitmap.factors",
            property(lambda _: pytest.fail("looked at all that pass")),
        )
        found, scores = search.search(anchor.whitened[5], 200, selling(anchor, Catalogue([b""]), allowed))
        assert len(set(found.tolist()) & set(allowed.tolist())) == 200
        assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("n_sold", [1_500, 40])
def test_a_search_follows_what_is_sold(built, n_sold, monkeypatch):
    monkeypatch.setattr("serving.retrieval.vector_index.EXACT_AMONG", 100)
    anchor, indexes = built
    rng, catalogue = np.random.default_rng(2), Catalogue([b""])
    passing = selling(anchor, catalogue, rng.choice(anchor.item_hash, n_sold, replace=False))
    kept = [VectorIndex(anchor, index) for index, _ in indexes]
    for n in range(6):
        queries = anchor.whitened[: n + 1]  # those of before, for which something is kept, and a new one
        for one in kept:
            for query in queries:
                fresh = VectorIndex(anchor, one._index)
                assert same(one.search(query, 20, passing), fresh.search(query, 20, passing))
        some = rng.choice(anchor.item_hash, 30, replace=False)
        catalogue.take([f"i{k - 1}" for k in some.tolist()], some, [{"stock": int(rng.integers(2))} for _ in some])
        sold = set(anchor.item_hash[passing.mask].tolist())
        assert all(set(one.search(query, 20, passing)[0].tolist()) <= sold for one in kept for query in queries)


def test_an_index_is_searched_once_until_something_changes(built, monkeypatch):
    monkeypatch.setattr("serving.retrieval.vector_index.EXACT_AMONG", 100)
    monkeypatch.setattr("serving.retrieval.vector_index.KEPT_SEARCHES", 3)
    anchor, indexes = built
    catalogue, index = Catalogue([b""]), VectorIndex(anchor, indexes[1][0])
    passing = selling(anchor, catalogue, anchor.item_hash[:3_000])
    mine, yours, theirs = anchor.whitened[:3]

    def searches(*queries, k=20, passing=passing):
        before = faiss.cvar.indexIVF_stats.nq
        for query in queries:
            index.search(query, k, passing)
        return faiss.cvar.indexIVF_stats.nq - before

    assert searches(mine, mine, yours, mine) == 2
    assert searches(mine, k=21) == 1
    assert searches(mine, yours) == 0
    catalogue.take(["i0"], anchor.item_hash[:1], [{"stock": 5}])  # it was in stock before
    assert searches(mine) == 0
    catalogue.take(["i0"], anchor.item_hash[:1], [{"stock": 0}])
    assert searches(mine, mine, yours) == 2
    assert searches(mine, mine, passing=None) == 1  # the one with k = 21 goes
    assert searches(yours, theirs) == 1  # mine goes: it was not asked for longest
    assert searches(yours, theirs) == 0
    assert searches(mine) == 1


@pytest.mark.process
def test_the_catalogue_benchmark_measures_what_it_says():
    command = [sys.executable, "-m", "headrace", "bench", "catalogue", "--queries", "50", "--json", "--items"]
    done = subprocess.run([*command, "60k"], capture_output=True, text=True, timeout=280, check=True)
    found = json.loads(done.stdout)
    assert found["items"] == 60_000
    assert found["recall@50"] > 0.9
    assert found["filtered"]["recall@50"] > 0.9
    assert found["bytes_per_item"] < 100
    wrong = subprocess.run([*command, "many"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "'many' is no number" in wrong.stderr
