"""Builds the search index over item factors; what is in it and its kind follow from the factors.

Inner products are decided by length: in factors of ALS the best items of any user are among the longest, a few in a
hundred (Bachrach et al., RecSys 2014, prune by the same fact). So the index of a large catalogue holds its HEAD, the
longest items: an eighth, or as many more as it takes to hold nearly all of what exact search finds. Kinds:

    up to EXACT_UP_TO      all vectors, exact
    up to COMPRESS_ABOVE   inverted file (IVF) of 4·√n lists, vectors as they are; exact where lists do not help
    above                  IVF of 1.3·√n lists over codes of 4 bits a factor (PQ: Jégou et al., TPAMI 2011), scanned
                           in registers (André et al., VLDB 2015); the best of them re-ranked by 6 bits a factor

Lists probed, and candidates re-ranked, are the fewest with which the wanted recall is met on queries near items, as
users are.
"""

import time
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

EXACT_UP_TO = 50_000
COMPRESS_ABOVE = 2_000_000
HEAD_SHARE = 1 / 8
WANTED_IN_HEAD = 0.98
WANTED_RECALL, WANTED_COMPRESSED = 0.95, 0.92
RECALL_AT = 50
N_QUERIES = 256
QUERY_NOISE = 0.5
TRAIN_PER_LIST = 60
"""Vectors the lists' centres are trained on, for each."""
MOST_LISTS = 1 / 4
"""Share of the lists that may be probed; where more must be, looking at all vectors in one go takes less time."""
CHUNK = 500_000
RERANKED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Candidates re-ranked for each that is asked for: the larger the head, the more lie between two that are best."""
LEAST_GAIN = 0.002
"""Of recall, by twice as many probes or candidates: what brings less is not worth its time once half of what is wanted
has been found. (Before, the best may lie in lists that come late, as those of factors without clusters do.)"""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def build_index(
    factors: Floats, exact_up_to: int = EXACT_UP_TO, compress_above: int = COMPRESS_ABOVE
) -> tuple[Any, dict[str, Any]]:
    """Return an inner-product index over the head of the factors (n, d), and its settings, recall and build times.

    The rows of its vectors are `longest(factors, index.ntotal)`. `factors` may be memory-mapped: it is read in chunks.
    """
    n, d = factors.shape
    started = time.perf_counter()
    if n <= exact_up_to:
        exact = faiss.IndexFlatIP(d)
        exact.add(np.ascontiguousarray(factors))
        return exact, {"index": "exact", "index_items": n, f"index_recall@{RECALL_AT}": 1.0}
    rng = np.random.default_rng(42)
    queries = queries_near(factors, N_QUERIES, rng)
    truth = exact_search(queries, factors, RECALL_AT)
    head = _head(factors, truth)
    chosen_at = time.perf_counter()
    compressed = len(head) > compress_above
    n_lists = int((1.3 if compressed else 4) * np.sqrt(len(head)))
    kind = f"IVF{n_lists},PQ{d}x4fs,Refine(SQ6)" if compressed else f"IVF{n_lists},Flat"
    index: Any = faiss.index_factory(d, kind, faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index).cp.seed = 42
    sample = np.sort(rng.choice(head, min(len(head), TRAIN_PER_LIST * n_lists), replace=False))
    index.train(np.ascontiguousarray(factors[sample]))
    trained_at = time.perf_counter()
    for first in range(0, len(head), CHUNK):
        index.add(np.ascontiguousarray(factors[head[first : first + CHUNK]]))
    added_at = time.perf_counter()
    recall = _fewest_that_find(index, queries, truth, head, WANTED_COMPRESSED if compressed else WANTED_RECALL)
    if not compressed and index.nprobe > MOST_LISTS * n_lists:
        kind, index = "exact", faiss.IndexFlatIP(d)
        index.add(np.ascontiguousarray(factors[head]))
    figures: dict[str, Any] = {
        "index": kind, "index_items": len(head), f"index_recall@{RECALL_AT}": recall,
        "index_seconds": {
            "choose": chosen_at - started, "train": trained_at - chosen_at, "add": added_at - trained_at,
            "tune": time.perf_counter() - added_at,
        },
    }  # fmt: skip
    if kind != "exact":
        figures |= {"index_lists": n_lists, "index_probes": faiss.extract_index_ivf(index).nprobe}
    if compressed:
        figures["index_reranked"] = int(index.k_factor * RECALL_AT)
    return index, figures


def longest(factors: Floats, n: int) -> Rows:
    """Return the rows of the n longest vectors, ascending; of equally long ones the first."""
    return np.sort(_by_length(factors)[:n])


def _by_length(factors: Floats) -> Rows:
    lengths = [np.linalg.norm(factors[first : first + CHUNK], axis=1) for first in range(0, len(factors), CHUNK)]
    return np.argsort(-np.concatenate(lengths), kind="stable")


def _head(factors: Floats, truth: Rows) -> Rows:
    """Return the rows that belong into the index: HEAD_SHARE, doubled until WANTED_IN_HEAD of `truth` is among them."""
    order = _by_length(factors)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    size = int(len(order) * HEAD_SHARE)
    while size < len(order) and (rank[truth] < size).mean() < WANTED_IN_HEAD:
        size *= 2
    return np.sort(order[:size])


def queries_near(factors: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return n vectors near items drawn at random, off by QUERY_NOISE of their length."""
    rows = np.sort(rng.choice(len(factors), min(n, len(factors)), replace=False))
    queries = np.array(factors[rows])
    spread = QUERY_NOISE * np.linalg.norm(queries, axis=1, keepdims=True) / np.sqrt(queries.shape[1])
    return np.asarray(queries + rng.normal(0, 1, queries.shape) * spread, np.float32)


def exact_search(queries: Floats, factors: Floats, k: int) -> Rows:
    """Return the rows of the k largest inner products of each query, (Q, k), by looking at all of them."""
    best = np.full((len(queries), 0), 0.0, np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for first in range(0, len(factors), CHUNK):
        part = np.ascontiguousarray(factors[first : first + CHUNK])
        scores, found = faiss.knn(queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        best, rows = np.concatenate((best, scores), axis=1), np.concatenate((rows, found + first), axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    return rows


def recall_of(found: Rows, truth: Rows) -> float:
    """Return the mean share of `truth` (Q, k) that is in `found` (Q, k)."""
    return float(np.mean([np.isin(b, a).mean() for a, b in zip(found, truth, strict=True)]))


def _fewest_that_find(index: Any, queries: Floats, truth: Rows, head: Rows, wanted: float) -> float:
    """Set the fewest probes, then the fewest re-ranked candidates, that reach the wanted recall; return the recall.

    Where it cannot be reached, they are those from which on more of them bring next to nothing.
    """
    ivf = faiss.extract_index_ivf(index)

    def recall() -> float:
        places = index.search(queries, truth.shape[1])[1]
        return recall_of(np.where(places >= 0, head[places], -1), truth)

    refined = isinstance(index, faiss.IndexRefine)
    if refined:
        index.k_factor = RERANKED[-1]
    ivf.nprobe = 1
    found = recall()
    while found < wanted and ivf.nprobe < ivf.nlist:
        fewer, before = ivf.nprobe, found
        ivf.nprobe = min(2 * fewer, ivf.nlist)
        found = recall()
        if wanted / 2 <= found < before + LEAST_GAIN:
            ivf.nprobe, found = fewer, before
            break
    enough = wanted if found >= wanted else found - LEAST_GAIN
    for fewer in reversed(RERANKED[:-1]) if refined else ():
        index.k_factor = fewer
        with_fewer = recall()
        if with_fewer < enough:
            index.k_factor = 2 * fewer
            break
        found = with_fewer
    return found
