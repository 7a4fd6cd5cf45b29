"""A request reads downhill: the stages that a batch goes through, each for all of its requests at once.

1. `read` sends the store one read of the visitors' rows; placements, arms and options are resolved before.
2. `answer` collects the rows: who the visitors are, what is cached, which rules act (`serving.rules`).
3. It scores the sessions (`serving.scoring`), and reads what sources need beside that.
4. It ranks: most lists come of the scores alone and are made together (`serving.ranking.batch_lists`), the others of
   their strategy's sources (`serving.candidates`), each on its own.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.candidates.context import RequestContext
from serving.candidates.pool import pool_of, wanted
from serving.candidates.strategies import (
    FOR_EVERYBODY,
    OF_WHAT_IS_BOUGHT,
    SOURCES,
    WITH_HABITS,
    WITH_MIXTURE,
    WITH_VECTOR,
    popular,
    seen_again,
)
from serving.engine.answer_cache import AnswerCache, Made
from serving.engine.metrics import StageClock
from serving.ranking.answers import answer_from_batch, answer_from_pool, name_arms
from serving.ranking.batch_lists import RankingInput, batch_lists, suits_batch, wants_whole_shop
from serving.rendering.lists import LazyItems
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest
from serving.rules.acting import Acting, Compiled
from serving.scoring.scorer import REPEAT_MODES, Scored
from serving.scoring.sessions import Sessions
from serving.snapshot.recent_events import Recent, recent_events
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor, may_follow, resolve, subjects_of
from serving.snapshot.visitor_rows import UserVectors, VisitorRead, VisitorRows

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
NO_ROWS: Rows = np.zeros(0, np.int64)


class _Visitors(NamedTuple):
    """The visitors and their data, by place in the batch."""

    rows: VisitorRows
    recent: Recent
    visitors: list[Visitor]
    cached: list[Answer | None]
    acting: list[Acting]
    """The rules that act on each answer."""
    wanted: list[int]
    """How many candidates are enough."""
    returning: Flags
    """Who is on a new visit and may be shown again what was bought."""


class _Scores(NamedTuple):
    """The mixture's candidates, by place in the batch."""

    scored: Scored
    rows: Rows
    """(B, M) their catalogue rows."""
    mixed: Flags
    """(B,) which requests want them; the others have none."""


class Pipeline:
    """One batch on one snapshot. `read` may be called once before `answer`, which is called once."""

    def __init__(
        self, snapshot: ServingSnapshot, cache: AnswerCache, requests: Sequence[RecommendRequest], rules: Compiled,
        now_ms: int, started_s: float,
    ) -> None:  # fmt: skip
        """`started_s` (`time.perf_counter`): when the batch came, for deadlines."""
        self.snapshot, self.requests, self.rules, self.now_ms = snapshot, requests, rules, now_ms
        self._cache, self._started_s = cache, started_s
        self._reading: VisitorRead | None = None
        self._arms = [rules.assign(request, now_ms) for request in requests]
        self._options = [
            resolve(request, rules.placement(request.placement, arms), snapshot.settings)
            for request, arms in zip(requests, self._arms, strict=True)
        ]
        self._subjects = subjects_of(requests)
        self._may_return = [
            options.strategy in WITH_HABITS and may_follow(request, options)
            for request, options in zip(requests, self._options, strict=True)
        ]

    def read(self) -> VisitorRead:
        """Send the read of the visitors' rows; it is under way when this returns."""
        clock = StageClock()
        older = [options.without_bought for options in self._options]
        purchases = [a or b for a, b in zip(self._may_return, older, strict=True)]
        self._reading = self.snapshot.read_visitors(self._subjects, purchases, older)
        clock.lap("read_users")
        return self._reading

    def answer(self) -> list[Answer]:
        """Return the answers, in the order of the requests. Raises StoreUnavailable and RuleFailed."""
        reading = self._reading or self.read()
        clock = StageClock()
        known = self._known(reading.rows())
        clock.lap("read_users")
        scores = self._score(known)
        clock.lap("score")
        vectors = self._read_what_sources_need(known, scores)
        clock.lap("read_vectors")
        popular_for = self._popular_for(known, scores, vectors)
        lists = self._batch_lists(known, scores, popular_for)
        answers = [
            self._answer(i, known, scores, vectors, lists.get(i), popular_for[i]) if cached is None else cached
            for i, cached in enumerate(known.cached)
        ]
        clock.lap("assemble")
        return answers

    def _known(self, rows: VisitorRows) -> _Visitors:
        requests, rules, now_ms = self.requests, self.rules, self.now_ms
        recent = recent_events(rows.users, now_ms, int(self.snapshot.settings.session_gap_s * 1000))
        visitors = [
            Visitor(requests[i], options, rows.users, recent, i, now_ms, rows.refused_by(i), rows.bought_by(i))
            for i, options in enumerate(self._options)
        ]
        cached = [
            self._cache.get(requests[i], self._made_of(visitor), now_ms) if visitor.plan.cache_s else None
            for i, visitor in enumerate(visitors)
        ]
        acting = [rules.acting(visitor.facts, self._arms[i].without) for i, visitor in enumerate(visitors)]
        enough = [wanted(visitor, acts) for visitor, acts in zip(visitors, acting, strict=True)]
        return _Visitors(rows, recent, visitors, cached, acting, enough, np.array(self._may_return) & ~recent.running)

    def _score(self, known: _Visitors) -> _Scores:
        """Return the mixture's candidates; none for requests that do not want them."""
        visitors, catalogue = known.visitors, self.snapshot.catalogue
        mixed: Flags = np.array(
            [visitor.plan.strategy in WITH_MIXTURE and known.cached[i] is None for i, visitor in enumerate(visitors)]
        )
        modes = np.array([REPEAT_MODES[visitor.plan.repeat] for visitor in visitors])
        scored = self.snapshot.score(_sessions(known, mixed), modes, self.now_ms)
        rows = catalogue.rows_of(scored.item.ravel()).reshape(scored.item.shape)
        for i in np.flatnonzero(scored.tied).tolist():
            _break_ties(scored, rows, i, catalogue.ids)
        return _Scores(scored, rows, mixed)

    def _read_what_sources_need(self, known: _Visitors, scores: _Scores) -> UserVectors:
        """Have the item rows of what returning visitors bought; return the vectors of all, those likely needed read."""
        users, purchases = known.rows.users, known.rows.purchases
        n_seen = users["seen"].tolist()
        seen = [subject if n else 0 for subject, n in zip(self._subjects, n_seen, strict=True)]
        vectors = self.snapshot.user_vectors(seen)  # who was never seen has none
        vectors.read(np.flatnonzero(_may_need_vector(known, scores.scored)).tolist())
        if purchases is not None:
            bought = purchases.item[known.returning]
            self.snapshot.slots_of(bought[bought != 0], self.now_ms)
        return vectors

    def _popular_for(self, known: _Visitors, scores: _Scores, vectors: UserVectors) -> list[bool]:
        """Return whose list comes of what is popular in the whole shop, and of nothing before it."""
        found = scores.mixed & (scores.scored.n > 0)
        return [not one and self._is_for_everybody(i, known, vectors) for i, one in enumerate(found.tolist())]

    def _is_for_everybody(self, i: int, known: _Visitors, vectors: UserVectors) -> bool:
        """Return whether only the mixture and the shop's own popular list can bring items."""
        visitor = known.visitors[i]
        strategy = visitor.plan.strategy
        if strategy not in FOR_EVERYBODY or known.cached[i] is not None or not wants_whole_shop(visitor):
            return False
        vector = vectors.of(i) if strategy in WITH_VECTOR and self.snapshot.index is not None else None
        return vector is None or not vector.any()

    def _batch_lists(self, known: _Visitors, scores: _Scores, popular_for: list[bool]) -> dict[int, LazyItems]:
        """Return the lists that the mixture or the popular items give without the sources, by place in the batch."""
        self.snapshot.reasons.refresh()
        purchases, possible = known.rows.purchases, scores.mixed | popular_for
        if purchases is not None:
            possible &= ~(known.returning & (purchases.n > 0))
        inputs = [
            RankingInput(i, known.visitors[i], known.acting[i], known.wanted[i], popular_for[i])
            for i in np.flatnonzero(possible).tolist()
            if suits_batch(known.visitors[i], known.acting[i])
        ]
        if not inputs:
            return {}
        return batch_lists(self.snapshot, inputs, known.rows.users, scores.scored, scores.rows, self.rules.version)

    def _answer(
        self, i: int, known: _Visitors, scores: _Scores, vectors: UserVectors, items: LazyItems | None, is_popular: bool
    ) -> Answer:
        """Return the answer to one request: with the list made in the batch, or with one made of its sources."""
        visitor = known.visitors[i]
        if items is not None:
            fallback = "popular" if is_popular else visitor.level
            answer = answer_from_batch(self.snapshot, visitor, items, fallback, self.rules)
        else:
            answer = self._answer_from_sources(i, known, scores, vectors)
        if self._arms[i].arms:
            name_arms(answer, self._arms[i])
        if visitor.plan.cache_s and not answer.skipped_sources:
            if items is not None:
                answer.items = items.alone  # what is cached keeps no other lists of the batch
            until_ms = self.now_ms + visitor.plan.cache_s * 1000
            self._cache.put(visitor.request, self._made_of(visitor), until_ms, answer)
        return answer

    def _answer_from_sources(self, i: int, known: _Visitors, scores: _Scores, vectors: UserVectors) -> Answer:
        visitor, acting, scored = known.visitors[i], known.acting[i], scores.scored
        mine, rows = (scored, scores.rows[i, : scored.n[i]]) if scores.mixed[i] else (None, NO_ROWS)
        pool = pool_of(self.snapshot, visitor, acting, self.rules.version)
        context = RequestContext(
            self.snapshot, visitor, pool, mine, i, rows, vectors, known.wanted[i], known.rows.purchases
        )  # fmt: skip
        skipped = collect_candidates(context, self._started_s)
        return answer_from_pool(context, acting, self.rules, skipped, self.now_ms)

    def _made_of(self, visitor: Visitor) -> Made:
        snapshot, anchor = self.snapshot, self.snapshot.index.version if self.snapshot.index else None
        return Made(visitor.n_events, snapshot.catalogue.version, self.rules.version, snapshot.generation, anchor)


def _sessions(known: _Visitors, mixed: Flags) -> Sessions:
    """Return the sessions to score, as the rows have them or as requests change them; none where none is wanted."""
    sessions = Sessions(known.recent.item.copy(), known.recent.n * mixed)
    for i, visitor in enumerate(known.visitors):
        if mixed[i] and (visitor.request.items or visitor.plan.strategy == "session"):
            n = sessions.n[i] = len(visitor.session)
            sessions.item[i, :n] = visitor.session
    return sessions


def _may_need_vector(known: _Visitors, scored: Scored) -> Flags:
    """Return where the mixture may leave places; those vectors are read together, others each on its own."""
    visitors, cached = known.visitors, known.cached
    with_vector = np.array([cached[i] is None and one.plan.strategy in WITH_VECTOR for i, one in enumerate(visitors)])
    filtered = np.array([one.request.filters is not None for one in visitors])  # how many these leave is not known
    places = np.array([known.wanted[i] + len(one.request.exclude) + one.n_kept_out for i, one in enumerate(visitors)])
    may_need: Flags = with_vector & (filtered | (places + known.rows.users["n"] > scored.n))
    return may_need


def _break_ties(scored: Scored, rows: Rows, i: int, ids: Sequence[str]) -> None:
    """Put equally likely candidates of session `i`, and their catalogue rows, in the order of their ids."""
    n, share = scored.n[i], scored.probability[i]
    edges = [0, *(np.flatnonzero(np.diff(share[:n])) + 1).tolist(), int(n)]
    for first, last in pairwise(edges):
        if last - first > 1:
            texts = [ids[row] if row >= 0 else "" for row in rows[i, first:last].tolist()]
            order = first + np.array(sorted(range(last - first), key=texts.__getitem__))
            for column in (scored.item, scored.seed, scored.reason, rows):
                column[i, first:last] = column[i, order]


def collect_candidates(context: RequestContext, started_s: float) -> list[str]:
    """Fill the pool from the strategy's sources until it holds enough; return the names of skipped sources.

    A source that would begin behind the request's deadline, counted from `started_s`, is skipped; `popular` never is.
    """
    visitor, pool = context.visitor, context.pool
    deadline_ms, skipped = visitor.request.deadline_ms, []
    held: Rows | None = None
    for source in SOURCES[visitor.plan.strategy]:
        if pool.n >= context.want:
            break
        if held is None and source not in OF_WHAT_IS_BOUGHT:
            held = pool.hold_back(visitor.held_back)
        if deadline_ms and (time.perf_counter() - started_s) * 1000 > deadline_ms and source is not popular:
            skipped.append(source.__name__)
        else:
            source(context)
    if held is not None:
        pool.release(held)
        if visitor.plan.repeat == "new_first" and pool.n < context.want:
            seen_again(context)
    return skipped
