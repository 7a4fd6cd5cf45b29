"""The recommender: a pure reading of rows, answered in batches. HTTP, gRPC and GraphQL all call it."""

import time
from collections.abc import Sequence

import numpy as np
import pybreaker
from prometheus_client import Counter

from schemas.ids import hash_id
from serving.answer_cache import AnswerCache, Made
from serving.answers import answer_of, name_arms, quick_answer
from serving.asking import Asking
from serving.blend import REPEAT_MODES, Scored
from serving.caps import fill
from serving.cursor import BadCursor, decode_cursor
from serving.pool import Pool
from serving.quick_lists import Waiting, is_quick, quick_lists
from serving.recent import recent_events
from serving.requests import Answer, RecommendRequest
from serving.retrieval import VectorIndex
from serving.rules import Acting, Compiled
from serving.shop import Shop, Vectors
from serving.sources import SOURCES, WITH_HABITS, WITH_MIXTURE, WITH_VECTOR, last_known, popular
from serving.visitor import NOTHING, Visitor, may_follow, plan_of, subject_of
from state.settings import Settings
from state.store import Store, StoreUnavailable
from state.user_rows import empty_users

BREAK_S = 1.0
NO_ROWS = np.zeros(0, np.int64)
SCOPES = ("all", "category", "brand", "country")
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


class BadRequest(ValueError):
    """A request that is well formed and cannot be answered: `field` says what of it is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class Recommender:
    """Answers requests from one generation's rows. One thread calls it."""

    def __init__(self, store: Store, settings: Settings, generation: str, try_again_s: float = BREAK_S) -> None:
        """After Redis failed, answers come from memory for `try_again_s`; then one batch tries it again."""
        self.shop = Shop(store, settings, generation)
        self._settings = settings
        self._cache = AnswerCache()
        self._breaker = pybreaker.CircuitBreaker(
            1, try_again_s, exclude=[lambda error: not isinstance(error, StoreUnavailable)]
        )

    @property
    def generation(self) -> str:
        return self.shop.generation

    @property
    def anchor(self) -> str | None:
        return self.shop.index.version if self.shop.index else None

    def take_over(self, index: VectorIndex) -> None:
        """Answer from this anchor from now on."""
        self.shop.take_over(index)

    def become(self, other: "Recommender") -> None:
        """Answer as `other` does from now on: another generation, loaded aside."""
        self.__dict__.update(other.__dict__)

    def warm_up(self) -> None:
        """Compile what the first request needs."""
        shop = self.shop
        shop.scorer.warm_up()
        shop.warm_up()
        asking, acting = self._asking_nobody(RecommendRequest(exclude=["nothing"]), shop.rules, 1)
        last_known(asking)
        scored = shop.score([NOTHING], [0], 1)
        quick_lists(shop, [Waiting(0, asking.visitor, acting, 1)], scored, np.full(scored.item.shape, -1), 0)
        fill(NO_ROWS, NO_ROWS, (), shop.catalogue, {}, 0, 1)

    def refresh(self) -> None:
        """Follow the rows that are read ahead of requests."""
        self.shop.refresh()

    def check(self, request: RecommendRequest) -> None:
        """Raise BadRequest for what only the rules and earlier answers can say of a request."""
        if request.placement is not None and request.placement not in self.shop.rules.placements:
            there = ", ".join(sorted(self.shop.rules.placements))
            raise BadRequest("placement", f"there is no {request.placement!r}; there are {there}")
        for name, arm in request.experiments.items():
            found = next((one for one in self.shop.rules.book.experiments if one.id == name), None)
            if found is None or found.arm(arm) is None:
                raise BadRequest(f"experiments.{name}", f"there is no arm {arm!r} of such an experiment")
        try:
            decode_cursor(request.cursor)
        except BadCursor as error:
            raise BadRequest("cursor", str(error)) from None

    def recommend(
        self, requests: Sequence[RecommendRequest], now_ms: int, rules: Compiled | None = None
    ) -> list[Answer]:
        """Answer requests together; each as it would be answered alone. `rules` replaces the live book (preview)."""
        started = time.perf_counter()
        rules = rules or self.shop.rules
        try:
            answers = self._breaker.call(self._recommend, requests, now_ms, rules, started)
        except (StoreUnavailable, pybreaker.CircuitBreakerError):
            answers = [self._from_memory(request, rules, now_ms) for request in requests]
        for answer in answers:
            answer.milliseconds = round((time.perf_counter() - started) * 1000, 3)
        return answers

    def from_memory(self, request: RecommendRequest, now_ms: int) -> Answer:
        """Answer with the popular list, reading nothing."""
        return self._from_memory(request, self.shop.rules, now_ms)

    def store_is_back(self) -> None:
        """Ask the store again: somebody has found that it answers."""
        self._breaker.close()

    @property
    def without_store(self) -> bool:
        """Whether answers come from memory because Redis failed."""
        return bool(self._breaker.current_state != pybreaker.STATE_CLOSED)

    def similar_items(self, item: str, count: int, lang: str = "en") -> Answer:
        """Return items that occur together with `item`, strongest first; by factors where none is known."""
        request = RecommendRequest(
            items=[item], exclude=[item], count=count, strategy="bought_together", lang="de" if lang == "de" else "en"
        )
        now_ms = time.time_ns() // 1_000_000
        return self._recommend([request], now_ms, self.shop.rules, time.perf_counter())[0]

    def popular(self, scope: str, name: str, count: int, lang: str = "en") -> Answer:
        """Return the heaviest items of everything, a category, a brand or a country."""
        now_ms = time.time_ns() // 1_000_000
        request = RecommendRequest(count=count, strategy="popular", lang="de" if lang == "de" else "en")
        asking, acting = self._asking_nobody(request, self.shop.rules, now_ms)
        popular(asking, [(self.shop.scope(SCOPES.index(scope), name, now_ms), name)] if scope != "all" else None)
        return answer_of(asking, acting, self.shop.rules, [], now_ms)

    def _recommend(
        self, requests: Sequence[RecommendRequest], now_ms: int, rules: Compiled, started: float
    ) -> list[Answer]:
        shop, gap_ms = self.shop, int(self._settings.session_gap_s * 1000)
        clock = _Clock()
        arms = [rules.assign(request, now_ms) for request in requests]
        plans = [
            plan_of(request, rules.placement(request.placement, assigned), self._settings)
            for request, assigned in zip(requests, arms, strict=True)
        ]
        subjects = [subject_of(request) for request in requests]
        may_return = [plan.strategy in WITH_HABITS and may_follow(requests[i], plan) for i, plan in enumerate(plans)]
        users, purchases = shop.read_visitors(subjects, may_return)
        clock.lap("read_users")
        recent = recent_events(users, now_ms, gap_ms)
        visitors = [Visitor(requests[i], plan, users, recent, i, now_ms) for i, plan in enumerate(plans)]
        kept = [
            self._cache.get(visitor.request, self._made(visitor, rules), now_ms) if visitor.plan.cache_s else None
            for visitor in visitors
        ]
        mixed = [plan.strategy in WITH_MIXTURE and kept[i] is None for i, plan in enumerate(plans)]
        sessions = [visitor.session if mix else NOTHING for visitor, mix in zip(visitors, mixed, strict=True)]
        scored = shop.score(sessions, [REPEAT_MODES[plan.repeat] for plan in plans], now_ms)
        rows = shop.catalogue.rows_of(scored.item.ravel()).reshape(scored.item.shape)
        clock.lap("score")
        rules_of = [rules.acting(visitor.facts, arms[i].without) for i, visitor in enumerate(visitors)]
        wanted = [_wanted(visitor, acting) for visitor, acting in zip(visitors, rules_of, strict=True)]
        vectors = Vectors(shop, subjects)
        vectors.read([
            i for i, visitor in enumerate(visitors)
            if kept[i] is None and _may_need_vector(visitor, scored, i, wanted[i])
        ])  # fmt: skip
        if purchases is not None:
            bought = purchases.item[np.array(may_return) & ~recent.running]
            shop.slots_of(bought[bought != 0], now_ms)  # the rows of these items are read together
        clock.lap("read_vectors")
        shop.phrases.look()
        quick = [
            Waiting(i, visitor, rules_of[i], wanted[i])
            for i, visitor in enumerate(visitors)
            if mixed[i] and not scored.tied[i] and is_quick(visitor, rules_of[i])
            and not (purchases is not None and purchases.n[i] and may_return[i] and not visitor.running)
        ]  # fmt: skip
        lists = quick_lists(shop, quick, scored, rows, rules.version) if quick else {}
        answers = []
        for i, (visitor, acting) in enumerate(zip(visitors, rules_of, strict=True)):
            answer, left_out = kept[i], list[str]()
            if answer is None and i in lists:
                answer = quick_answer(shop, visitor, lists[i], rules)
            elif answer is None:
                mine = rows[i, : scored.n[i]] if mixed[i] else NO_ROWS
                pool = self._pool(visitor, acting, rules)
                asking = Asking(
                    shop, visitor, pool, scored if mixed[i] else None, i, mine, vectors, wanted[i], purchases
                )
                left_out = _ask(asking, started)
                answer = answer_of(asking, acting, rules, left_out, now_ms)
            if arms[i].arms:
                name_arms(answer, arms[i])
            answers.append(answer)
            if visitor.plan.cache_s and kept[i] is None and not left_out:
                until_ms = now_ms + visitor.plan.cache_s * 1000
                self._cache.put(visitor.request, self._made(visitor, rules), until_ms, answer)
        clock.lap("assemble")
        return answers

    def _made(self, visitor: Visitor, rules: Compiled) -> Made:
        return Made(visitor.n_events, self.shop.catalogue.version, rules.version, self.shop.generation, self.anchor)

    def _pool(self, visitor: Visitor, acting: Acting, rules: Compiled) -> Pool:
        shop, request = self.shop, visitor.request
        selection = shop.selections.of(visitor.plan.in_stock, request.filters, acting, rules.version)
        shop.phrases.look()
        pool = Pool(shop.catalogue, selection, shop.scratch)
        if request.exclude:
            pool.leave_out(np.array([hash_id(item) for item in request.exclude], np.uint64))
        if request.cursor:
            pool.leave_out(visitor.shown)
        if visitor.refuses:
            pool.leave_out(visitor.refused())
        return pool

    def _asking_nobody(self, request: RecommendRequest, rules: Compiled, now_ms: int) -> tuple[Asking, Acting]:
        """Return a request ready for sources that need nothing of the store, and the rules that act on it."""
        plan = plan_of(request, rules.placement(request.placement), self._settings)
        nobody = empty_users(1)
        visitor = Visitor(request, plan, nobody, recent_events(nobody, now_ms, 0), 0, now_ms)
        acting = rules.acting(visitor.facts)
        pool, nothing = self._pool(visitor, acting, rules), Vectors(self.shop, [0])
        return Asking(self.shop, visitor, pool, None, 0, NO_ROWS, nothing, _wanted(visitor, acting)), acting

    def _from_memory(self, request: RecommendRequest, rules: Compiled, now_ms: int) -> Answer:
        asking, acting = self._asking_nobody(request, rules, now_ms)
        last_known(asking)
        return answer_of(asking, acting, rules, [], now_ms)


def _may_need_vector(visitor: Visitor, scored: Scored, i: int, want: int) -> bool:
    """Say whether the mixture may leave places; then the vector is read with those of the batch, else on its own."""
    if visitor.plan.strategy not in WITH_VECTOR:
        return False
    found = int(scored.n[i])
    return found < want + len(visitor.history_items) + len(visitor.request.exclude)


def _wanted(visitor: Visitor, acting: Acting) -> int:
    """Return how many candidates are enough: more where rules or variety leave some behind."""
    more = acting.caps or acting.boosts or visitor.plan.diversity > 0
    return visitor.plan.count * (3 if more else 1) + 1


def _ask(asking: Asking, started: float) -> list[str]:
    """Ask the strategy's sources until there are enough candidates; return those the deadline left no time for."""
    deadline_ms, left_out = asking.visitor.request.deadline_ms, []
    for source in SOURCES[asking.visitor.plan.strategy]:
        if asking.pool.n >= asking.want:
            break
        if deadline_ms and (time.perf_counter() - started) * 1000 > deadline_ms and source is not popular:
            left_out.append(source.__name__)
        else:
            source(asking)
    return left_out
