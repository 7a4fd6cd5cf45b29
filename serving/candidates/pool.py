"""The candidates of one answer, in the order of their sources: no item twice, and none that may not be shown."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.ids import hash_ids
from serving.catalogue.catalogue import Catalogue
from serving.rendering.items import RenderedReason
from serving.rules.acting import Acting
from serving.rules.item_filter import Selection
from serving.snapshot.scratch import RANK_DECAY, Candidates, Scratch, mark_seen, take
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor

LEAST_SHARE = 1e-6
"""Of the best score of a source; what has less follows by its rank."""
DRAWS = 8
"""Rows drawn at random for each that is wanted."""

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Priority(NamedTuple):
    """The priority of one source's items: their place on the fallback ladder, and their reasons."""

    level: str
    """How far down the fallback ladder it is."""
    reasons: Callable[[list[int]], list[RenderedReason]]


def uniform(level: str, reason: Callable[[int], RenderedReason]) -> Priority:
    """Return the priority of a source whose reasons are made one by one."""
    return Priority(level, lambda places: [reason(place) for place in places])


def shares_of_best(scores: Floats) -> Floats:
    """Return falling scores relative to the first, in (0, 1]; those under LEAST_SHARE of it by rank.

    >>> shares_of_best(np.array([4.0, 2.0, -1.0])).tolist()
    [1.0, 0.5, 9.8e-07]
    """
    if not len(scores):
        return scores
    shares: Floats = scores / scores[0] if scores[0] > 0 else np.zeros(len(scores))
    n_large = int(np.count_nonzero(shares >= LEAST_SHARE))
    rest = np.arange(1, len(scores) - n_large + 1)
    shares[n_large:] = (LEAST_SHARE if n_large else 1.0) * RANK_DECAY**rest
    return shares


class Pool:
    """The candidates of one answer. The next pool on the same scratch ends this one."""

    def __init__(self, catalogue: Catalogue, selection: Selection, scratch: Scratch) -> None:
        self._catalogue, self.selection, self._scratch = catalogue, selection, scratch
        scratch.begin(len(catalogue))
        self.tiers: list[Priority] = []
        self._least = 1.0
        self.n = 0

    def leave_out(self, hashes: Hashes) -> None:
        """Let none of these items in."""
        mark_seen(self._catalogue.rows_of(hashes), self._scratch.met_in, self._scratch.answer)

    def hold_back(self, hashes: Hashes) -> Ints:
        """Let none of these items in until `release`; return the catalogue rows of those that could have come."""
        rows, scratch = self._catalogue.rows_of(hashes), self._scratch
        held: Ints = np.unique(rows[rows >= 0])
        held = held[scratch.met_in[held] != scratch.answer]
        scratch.met_in[held] = scratch.answer
        return held

    def release(self, held: Ints) -> None:
        """Let items in again that `hold_back` kept out."""
        self._scratch.met_in[held] = 0

    def add(self, hashes: Hashes, scores: Floats, tier: Priority, rows: Ints | None = None) -> None:
        """Add a source's distinct items, best first; `scores`: falling, above 0 and at most 1."""
        rows = self._catalogue.rows_of(hashes) if rows is None else rows
        scratch, before = self._scratch, self.n
        self.n, self._least = take(
            rows, scores, self.selection.mask, scratch.met_in, scratch.answer, len(self.tiers), self._least,
            scratch.room(self.n, len(rows)), self.n,
        )  # fmt: skip
        if self.n > before:
            self.tiers.append(tier)

    def allows(self, row: int) -> bool:
        """Return whether an item may be shown that no source brought."""
        return bool(self.selection.mask[row]) and bool(self._scratch.met_in[row] != self._scratch.answer)

    def unseen_sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return `n` rows at random, or all, of those that may be shown and that no source brought."""
        mask, met_in, answer = self.selection.mask, self._scratch.met_in, self._scratch.answer
        if len(mask):
            # Of most shops nearly all may be shown: to look at all of them would take longer the larger the shop is.
            drawn: Ints = rng.integers(len(mask), size=DRAWS * n)
            drawn = drawn[mask[drawn] & (met_in[drawn] != answer)]
            first = np.sort(np.unique(drawn, return_index=True)[1])
            if len(first) >= n:
                drawn = drawn[first[:n]]
                return drawn
        rows = np.flatnonzero(mask)
        rows = rows[met_in[rows] != answer]
        chosen: Ints = rng.choice(rows, min(n, len(rows)), replace=False)
        return chosen

    def candidates(self) -> Candidates:
        """Return the candidates in the order they came; good until the next pool begins."""
        (row, score, tier, place), n = self._scratch.candidates, self.n
        return Candidates(row[:n], score[:n], tier[:n], place[:n])


def pool_of(shop: ServingSnapshot, visitor: Visitor, acting: Acting, book: int) -> Pool:
    """Return an empty pool for a visitor's candidates: it lets in what may be shown and is not excluded."""
    request = visitor.request
    pool = Pool(shop.catalogue, shop.selections.of(visitor.plan.in_stock, request.filters, acting, book), shop.scratch)
    if request.exclude:
        pool.leave_out(hash_ids(request.exclude))
    if request.cursor:
        pool.leave_out(visitor.shown)
    if visitor.refuses:
        pool.leave_out(visitor.refused())
    return pool


def wanted(visitor: Visitor, acting: Acting) -> int:
    """Return how many candidates are enough: more where rules or variety leave some behind."""
    more = acting.caps or acting.boosts or visitor.plan.diversity > 0
    return visitor.plan.count * (3 if more else 1) + 1
