"""`headrace bench catalogue`: the vector index of a catalogue of any size: build, bytes, recall, milliseconds."""

import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import numpy.typing as npt
import typer

from headrace.bench.up import machine, print_figures
from headrace.console import OK, err, progress_bar
from headrace.options import Json
from headrace.sizes import parse_size
from serving.retrieval.build import RECALL_AT, build_index, exact_search, queries_near, recall_of
from serving.retrieval.filter_bitmap import ItemFilter
from serving.retrieval.vector_index import VectorIndex
from state.anchor import INDEX, Anchor

CHUNK = 500_000
NOISE, LENGTH_SPREAD = 0.7, 0.7
EXACT_QUERIES, WARM_QUERIES = 20, 100
TENTH = 10
"""The filtered searches leave one item in this many."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def write_factors(path: Path, n: int, d: int) -> Floats:
    """Write factors of n items to a file and return them memory-mapped.

    Items lie around √n / 2 topics, in all directions alike, at log-normal lengths, as whitened factors of ALS do:
    with 41,000 items an inverted file finds as much with as many probes as in those of Gowalla.
    """
    rng = np.random.default_rng(11)
    topics = rng.normal(0, 1, (int(np.sqrt(n) / 2) + 1, d)).astype(np.float32)
    factors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    with progress_bar("items") as bar:
        task = bar.add_task("making factors", total=n, rate=0.0)
        for first in range(0, n, CHUNK):
            size = min(CHUNK, n - first)
            around = topics[rng.integers(len(topics), size=size)]
            length = rng.lognormal(0, LENGTH_SPREAD, (size, 1)).astype(np.float32)
            factors[first : first + size] = (around + NOISE * rng.standard_normal((size, d), np.float32)) * length
            bar.update(task, completed=first + size)
    return factors


class _Tenth:
    """Every tenth of the items, and the list of all of them."""

    version = 0

    def __init__(self, hashes: Hashes) -> None:
        self._hashes, self.mask = hashes, np.zeros(len(hashes), np.bool_)
        self.mask[::TENTH] = True

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def catalogue(self) -> "_Tenth":
        return self

    def hashes(self) -> Hashes:
        return self._hashes

    def rows_of(self, item_hashes: Hashes) -> Rows:
        return item_hashes.astype(np.int64) - 1

    def changed_since(self, version: int) -> None:
        """Nothing is remembered."""


def _searched(index: VectorIndex, queries: Floats, passing: ItemFilter | None = None) -> tuple[Rows, dict[str, float]]:
    """Return (rows found, (Q, RECALL_AT), median and 99th percentile of the milliseconds of one search)."""
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        hashes, _ = index.search(query, RECALL_AT, passing)
        times.append((time.perf_counter() - began) * 1000)
        found.append(hashes.astype(np.int64) - 1)
    return np.array(found), {"p50_ms": float(np.quantile(times, 0.5)), "p99_ms": float(np.quantile(times, 0.99))}


def measure(folder: Path, n: int, d: int, n_queries: int) -> dict[str, Any]:
    """Build the index of n items, write it, map it, search it on one thread; return the figures."""
    factors = write_factors(folder / "factors.npy", n, d)
    with err.status("building the index"):
        began = time.perf_counter()
        built, figures = build_index(factors)
        built_s = time.perf_counter() - began
    path = folder / INDEX
    faiss.write_index(built, str(path))
    hashes = np.arange(1, n + 1, dtype=np.uint64)
    anchor = Anchor("bench", [], hashes, factors, np.eye(d, dtype=np.float32), 1.0, np.ones(1))
    index = VectorIndex(anchor, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
    queries = queries_near(factors, n_queries, np.random.default_rng(5))
    others = queries_near(factors, WARM_QUERIES, np.random.default_rng(6))
    allowed = _Tenth(hashes)
    with err.status("searching exactly, for comparison"):
        truth = exact_search(queries, factors, RECALL_AT)
        true_among = exact_search(queries, np.array(factors[::TENTH]), RECALL_AT) * TENTH
    faiss.omp_set_num_threads(1)
    with err.status("searching"):
        _searched(index, others)  # the pages of the file are read
        _searched(index, others[:1], allowed)  # a filter is prepared once
        found, times = _searched(index, queries)
        found_among, times_among = _searched(index, queries, allowed)
        began = time.perf_counter()
        exact_search(queries[:EXACT_QUERIES], factors, RECALL_AT)
        exact_ms = (time.perf_counter() - began) / EXACT_QUERIES * 1000
    return {
        "items": n,
        "factors": d,
        **{name: value for name, value in figures.items() if name != "index_seconds"},
        "build_s": round(built_s, 1),
        "build_s_by_stage": {name: round(s, 1) for name, s in figures.get("index_seconds", {}).items()},
        "bytes_per_item": round(path.stat().st_size / n, 1),
        f"recall@{RECALL_AT}": recall_of(found, truth),
        **times,
        "filtered": {f"recall@{RECALL_AT}": recall_of(found_among, true_among), **times_among},
        "exact_ms": exact_ms,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def run(n: int, factors: int, queries: int, json: bool) -> int:
    """Measure and print; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), n, factors, min(queries, n))
    figures |= {
        "data": f"made factors: √n / 2 topics, log-normal lengths; {queries:,} queries near items, one at a time, one "
        f"thread; filtered: one item in {TENTH} may be returned; exact: {EXACT_QUERIES} queries together, one thread",
        "repeats": 1,
        "machine": machine(),
    }
    print_figures(figures, "search in a catalogue", json)
    return OK


def command(
    items: Annotated[float, typer.Option(parser=parse_size, metavar="NUMBER", help="Items, e.g. 200k or 10M.")] = 1e6,
    factors: Annotated[int, typer.Option(min=2, help="Factors of an item; even.")] = 64,
    queries: Annotated[int, typer.Option(min=1, help="Searches.")] = 1_000,
    json: Json = False,
) -> None:
    """Build the vector index of a large catalogue: time, bytes an item, recall, milliseconds."""
    raise typer.Exit(run(int(items), factors, queries, json))
