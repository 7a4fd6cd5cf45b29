"""Requests that are answered together: what each needs is read and scored for all of them at once."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter

from serving.candidates.context import RequestContext
from serving.candidates.pool import pool_of, wanted
from serving.candidates.strategies import FOR_EVERYBODY, SOURCES, WITH_HABITS, WITH_MIXTURE, WITH_VECTOR, popular
from serving.engine.answer_cache import AnswerCache, Made
from serving.ranking.answers import answer_of, name_arms, quick_answer
from serving.ranking.batch_lists import RankingInput, asks_everybody, is_quick, quick_lists
from serving.rendering.lists import LazyItems
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest
from serving.rules.model import Compiled
from serving.scoring.scorer import REPEAT_MODES, Scored
from serving.scoring.sessions import Sessions
from serving.snapshot.recent_events import recent_events
from serving.snapshot.snapshot import ServingSnapshot, Vectors, Visited
from serving.snapshot.visitor import Visitor, may_follow, resolve, subjects_of

NO_ROWS = np.zeros(0, np.int64)
Flags = npt.NDArray[np.bool_]
STAGE_SECONDS = Counter("headrace_answer_stage_seconds", "Time of answers by stage", ["stage"])
STAGES = {name: STAGE_SECONDS.labels(name) for name in ("read_users", "score", "read_vectors", "assemble")}


class _Clock:
    """Counts the time of a batch by stage."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        STAGES[stage].inc(now - self._at)
        self._at = now


class Batch:
    """One batch on its way; `answers` is called once."""

    def __init__(
        self, shop: ServingSnapshot, cache: AnswerCache, requests: Sequence[RecommendRequest], rules: Compiled,
        now_ms: int, started: float,
    ) -> None:  # fmt: skip
        """`started` (`time.perf_counter`): when the batch came, for deadlines."""
        self.shop, self.requests, self.rules, self.now_ms, self.started = shop, requests, rules, now_ms, started
        self._cache, self._clock = cache, _Clock()
        self._read: Callable[[], Visited] | None = None
        self._arms = [rules.assign(request, now_ms) for request in requests]
        self._plans = [
            resolve(request, rules.placement(request.placement, arms), shop.settings)
            for request, arms in zip(requests, self._arms, strict=True)
        ]
        self._subjects = subjects_of(requests)
        self._may_return = [
            plan.strategy in WITH_HABITS and may_follow(request, plan)
            for request, plan in zip(requests, self._plans, strict=True)
        ]
        self._without_bought = [plan.without_bought for plan in self._plans]
        self._wants_purchases = [a or b for a, b in zip(self._may_return, self._without_bought, strict=True)]

    def ask(self) -> Callable[[], Visited]:
        """Ask the store for the users' rows; until `answers` is called they are on their way. Once is enough."""
        self._read = self.shop.begin_visitors(self._subjects, self._wants_purchases, self._without_bought)
        self._clock.lap("read_users")
        return self._read

    def answers(self) -> list[Answer]:
        """Return the answers, in the order of the requests. Raises StoreUnavailable."""
        self._clock = _Clock()  # what the loop did since `ask` is not ours
        self._read_visitors()
        scored, rows = self._score()
        self._clock.lap("score")
        self._read_what_sources_need(scored)
        self._clock.lap("read_vectors")
        lists = self._quick_lists(scored, rows)
        answers = [self._answer(place, lists.get(place), scored, rows) for place in range(len(self.requests))]
        self._clock.lap("assemble")
        return answers

    def _read_visitors(self) -> None:
        shop, requests, rules, now_ms = self.shop, self.requests, self.rules, self.now_ms
        visited = (self._read or self.ask())()
        self._users, self._purchases = visited.users, visited.purchases
        self._clock.lap("read_users")
        recent = recent_events(self._users, now_ms, int(shop.settings.session_gap_s * 1000))
        self._visitors = [
            Visitor(requests[i], plan, self._users, recent, i, now_ms, visited.refused_by(i), visited.bought_by(i))
            for i, plan in enumerate(self._plans)
        ]
        self._recent = recent
        self._returning: Flags = np.array(self._may_return) & ~recent.running
        """Who is on a new visit and may be shown again what was bought."""
        self._kept = [
            self._cache.get(requests[i], self._made_of(visitor), now_ms) if visitor.plan.cache_s else None
            for i, visitor in enumerate(self._visitors)
        ]
        self._acting = [rules.acting(visitor.facts, self._arms[i].without) for i, visitor in enumerate(self._visitors)]
        self._wanted = [wanted(visitor, acting) for visitor, acting in zip(self._visitors, self._acting, strict=True)]

    def _score(self) -> tuple[Scored, npt.NDArray[np.int64]]:
        """Return the mixture's candidates and their catalogue rows; none for requests that do not want them."""
        visitors = self._visitors
        self._mixed: Flags = np.array(
            [visitor.plan.strategy in WITH_MIXTURE and self._kept[i] is None for i, visitor in enumerate(visitors)]
        )
        modes = np.array([REPEAT_MODES[visitor.plan.repeat] for visitor in visitors])
        scored = self.shop.score(self._sessions(), modes, self.now_ms)
        rows = self.shop.catalogue.rows_of(scored.item.ravel()).reshape(scored.item.shape)
        for i in np.flatnonzero(scored.tied).tolist():
            _break_ties(scored, rows, i, self.shop.catalogue.ids)
        return scored, rows

    def _sessions(self) -> Sessions:
        """Return the sessions to score, as the rows have them or as requests change them; none where none is wanted."""
        sessions = Sessions(self._recent.item.copy(), self._recent.n * self._mixed)
        for i, visitor in enumerate(self._visitors):
            if self._mixed[i] and (visitor.request.items or visitor.plan.strategy == "session"):
                n = sessions.n[i] = len(visitor.session)
                sessions.item[i, :n] = visitor.session
        return sessions

    def _read_what_sources_need(self, scored: Scored) -> None:
        n_seen = self._users["seen"].tolist()
        seen = [subject if n else 0 for subject, n in zip(self._subjects, n_seen, strict=True)]
        self._vectors = Vectors(self.shop, seen)  # who was never seen has none
        self._vectors.read(np.flatnonzero(self._may_need_vector(scored)).tolist())
        if self._purchases is not None:
            bought = self._purchases.item[self._returning]
            self.shop.slots_of(bought[bought != 0], self.now_ms)

    def _may_need_vector(self, scored: Scored) -> Flags:
        """Say where the mixture may leave places; those vectors are read together, others each on its own."""
        visitors, kept = self._visitors, self._kept
        with_vector = np.array([kept[i] is None and one.plan.strategy in WITH_VECTOR for i, one in enumerate(visitors)])
        filtered = np.array([one.request.filters is not None for one in visitors])  # nobody knows how many they leave
        wanted = np.array(
            [self._wanted[i] + len(one.request.exclude) + one.n_kept_out for i, one in enumerate(visitors)]
        )
        may_need: Flags = with_vector & (filtered | (wanted + self._users["n"] > scored.n))
        return may_need

    def _quick_lists(self, scored: Scored, rows: npt.NDArray[np.int64]) -> dict[int, LazyItems]:
        self.shop.phrases.look()
        found = self._mixed & (scored.n > 0)
        self._popular = [not one and self._is_for_everybody(i) for i, one in enumerate(found.tolist())]
        """Whose list comes of what is popular in the whole shop, and of nothing before it."""
        quick = self._mixed | self._popular
        if self._purchases is not None:
            quick &= ~(self._returning & (self._purchases.n > 0))
        waiting = [
            RankingInput(i, self._visitors[i], self._acting[i], self._wanted[i], self._popular[i])
            for i in np.flatnonzero(quick).tolist()
            if is_quick(self._visitors[i], self._acting[i])
        ]
        if not waiting:
            return {}
        return quick_lists(self.shop, waiting, self._users, scored, rows, self.rules.version)

    def _is_for_everybody(self, i: int) -> bool:
        """Say whether no source before `popular` but the mixture may have anything, and that would bring the shop's."""
        visitor = self._visitors[i]
        strategy = visitor.plan.strategy
        if strategy not in FOR_EVERYBODY or self._kept[i] is not None or not asks_everybody(visitor):
            return False
        vector = self._vectors.of(i) if strategy in WITH_VECTOR and self.shop.index is not None else None
        return vector is None or not vector.any()

    def _answer(self, i: int, quick: LazyItems | None, scored: Scored, rows: npt.NDArray[np.int64]) -> Answer:
        shop, visitor, acting, kept = self.shop, self._visitors[i], self._acting[i], self._kept[i]
        if kept is not None:
            return kept
        if quick is not None:
            fallback = "popular" if self._popular[i] else visitor.level
            answer = quick_answer(shop, visitor, quick, fallback, self.rules)
        else:
            mine, candidates = (scored, rows[i, : scored.n[i]]) if self._mixed[i] else (None, NO_ROWS)
            pool = pool_of(shop, visitor, acting, self.rules.version)
            asking = RequestContext(
                shop, visitor, pool, mine, i, candidates, self._vectors, self._wanted[i], self._purchases
            )  # fmt: skip
            skipped = _ask(asking, self.started)
            answer = answer_of(asking, acting, self.rules, skipped, self.now_ms)
        if self._arms[i].arms:
            name_arms(answer, self._arms[i])
        if visitor.plan.cache_s and not answer.skipped_sources:
            if quick is not None:
                answer.items = quick.alone  # what is kept keeps no other lists of the batch
            until_ms = self.now_ms + visitor.plan.cache_s * 1000
            self._cache.put(visitor.request, self._made_of(visitor), until_ms, answer)
        return answer

    def _made_of(self, visitor: Visitor) -> Made:
        shop, anchor = self.shop, self.shop.index.version if self.shop.index else None
        return Made(visitor.n_events, shop.catalogue.version, self.rules.version, shop.generation, anchor)


def _break_ties(scored: Scored, rows: npt.NDArray[np.int64], i: int, ids: Sequence[str]) -> None:
    """Put equally likely candidates of session `i`, and their catalogue rows, in the order of their ids."""
    n, share = scored.n[i], scored.probability[i]
    edges = [0, *(np.flatnonzero(np.diff(share[:n])) + 1).tolist(), int(n)]
    for first, last in pairwise(edges):
        if last - first > 1:
            texts = [ids[row] if row >= 0 else "" for row in rows[i, first:last].tolist()]
            order = first + np.array(sorted(range(last - first), key=texts.__getitem__))
            for column in (scored.item, scored.seed, scored.reason, rows):
                column[i, first:last] = column[i, order]


def _ask(asking: RequestContext, started: float) -> list[str]:
    """Ask the strategy's sources until there are enough candidates; return those the deadline left no time for."""
    deadline_ms, skipped = asking.visitor.request.deadline_ms, []
    for source in SOURCES[asking.visitor.plan.strategy]:
        if asking.pool.n >= asking.want:
            break
        if deadline_ms and (time.perf_counter() - started) * 1000 > deadline_ms and source is not popular:
            skipped.append(source.__name__)
        else:
            source(asking)
    return skipped
