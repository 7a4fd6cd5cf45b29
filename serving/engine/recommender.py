"""The recommender: a pure reading of rows, answered in batches. HTTP, gRPC and GraphQL all call it."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from pydantic import TypeAdapter, ValidationError

from serving.candidates.context import RequestContext
from serving.candidates.pool import pool_of, wanted
from serving.candidates.strategies import offline_popular, popular
from serving.engine.answer_cache import AnswerCache
from serving.engine.guarded_store import GuardedStore, Wake
from serving.engine.request_batch import NO_ROWS, Batch
from serving.engine.trial_store import TrialStore
from serving.ranking.answers import answer_of
from serving.request.answer import Answer
from serving.request.cursor import BadCursor, decode_cursor
from serving.request.requests import Id, RecommendRequest, first_error
from serving.request.trials import Budget
from serving.retrieval.vector_index import VectorIndex
from serving.rules.model import Acting, Compiled, RuleFailed
from serving.settings import ServingSettings
from serving.snapshot.recent_events import recent_events
from serving.snapshot.snapshot import ServingSnapshot, Vectors
from serving.snapshot.visitor import Visitor, resolve
from state.rows.user_rows import empty_users
from state.store.contract import Store, StoreUnavailable

SCOPES = ("all", "category", "brand", "country")
IDS: TypeAdapter[str] = TypeAdapter(Id)


class BadRequest(ValueError):
    """A request that is well formed and cannot be answered: `field` says what of it is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def _check_id(field: str, text: str) -> None:
    """Raise BadRequest unless a text can be an id."""
    try:
        IDS.validate_python(text)
    except ValidationError as wrong:
        raise BadRequest(field, first_error(wrong)[1]) from None


class Recommender:
    """Answers requests from one generation's rows. One thread calls it."""

    def __init__(
        self,
        store: Store | GuardedStore,
        settings: ServingSettings,
        generation: str,
        shop: ServingSnapshot | None = None,
    ) -> None:
        """While the store is away answers come from memory. `shop`: one that is there already."""
        self.store = store if isinstance(store, GuardedStore) else GuardedStore(store)
        self.shop = shop or ServingSnapshot(self.store, settings, generation)
        self._settings = settings
        self._cache = AnswerCache()

    @property
    def generation(self) -> str:
        return self.shop.generation

    @property
    def anchor(self) -> str | None:
        return self.shop.index.version if self.shop.index else None

    def frozen(self, budget: Budget) -> "Recommender":
        """Return one that answers as this one does now, for another thread; it keeps nothing that this one uses.

        Whoever has it closes its `store`.
        """
        store = TrialStore(self.store)
        return Recommender(store, self._settings, self.generation, self.shop.frozen(store, budget))

    def set_index(self, index: VectorIndex) -> None:
        """Answer from this anchor from now on."""
        self.shop.set_index(index)

    def replace_snapshot(self, other: "Recommender") -> None:
        """Answer as `other` does from now on: another generation, loaded aside."""
        self.shop.close()
        self.__dict__.update(other.__dict__)

    def refresh(self, now_ms: int, most: int | None = None) -> None:
        """Follow the rows that are read ahead of requests (`Shop.refresh`)."""
        self.shop.hear_changes()
        self.shop.refresh(now_ms, most)

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
        return self.begin(requests, now_ms, rules)()

    def begin(
        self, requests: Sequence[RecommendRequest], now_ms: int, rules: Compiled | None = None
    ) -> Callable[[], list[Answer]]:
        """Begin to answer, with what Redis can do meanwhile; call what is returned, soon, for the answers."""
        started = time.perf_counter()
        batch = Batch(self.shop, self._cache, requests, rules or self.shop.rules, now_ms, started)
        if not self.without_store:
            batch.ask()
        return partial(self._finish, batch)

    def _finish(self, batch: Batch) -> list[Answer]:
        requests, rules, now_ms = batch.requests, batch.rules, batch.now_ms
        if batch.shop is not self.shop:  # another generation has been taken over since
            batch = Batch(self.shop, self._cache, requests, rules, now_ms, batch.started)
        self.store.allow(batch.started)
        try:
            answers = self._answers(batch)
        except StoreUnavailable:
            answers = [self._from_memory(request, rules, now_ms) for request in requests]
        milliseconds = round((time.perf_counter() - batch.started) * 1000, 3)
        for answer in answers:
            answer.milliseconds = milliseconds
        return answers

    def _answers(self, batch: Batch) -> list[Answer]:
        """Return a batch's answers; a rule that cannot be evaluated is left out of them."""
        while True:
            try:
                return batch.answers()
            except RuleFailed as failed:
                self._leave_out(failed, batch.rules)
            batch = Batch(self.shop, self._cache, batch.requests, batch.rules, batch.now_ms, batch.started)

    def _leave_out(self, failed: RuleFailed, rules: Compiled) -> None:
        """Have this rule act no more, nor others that would fail next."""
        others = self.shop.selections.failing(rules.acting_rules, rules.version)
        rules.leave_out([failed, *(other for other in others if other.rule != failed.rule)])

    def from_memory(self, request: RecommendRequest, now_ms: int) -> Answer:
        """Answer with the popular list, reading nothing."""
        return self._from_memory(request, self.shop.rules, now_ms)

    def when_heard(self, wake: Wake) -> None:
        """Call `wake` in the loop when what `begin` asked of Redis is answered, or is not going to be in time."""
        self.store.when_heard(wake)

    @property
    def without_store(self) -> bool:
        """Whether answers come from memory because Redis failed."""
        return self.store.is_away

    def similar_items(self, item: str, count: int, now_ms: int, lang: str = "en") -> Answer:
        """Return items that occur together with `item`, strongest first; by factors where none is known.

        Raises BadRequest.
        """
        _check_id("item", item)
        request = RecommendRequest(
            items=[item], exclude=[item], count=count, strategy="bought_together", lang="de" if lang == "de" else "en"
        )
        return self._answers(Batch(self.shop, self._cache, [request], self.shop.rules, now_ms, time.perf_counter()))[0]

    def popular(self, scope: str, name: str, count: int, now_ms: int, lang: str = "en") -> Answer:
        """Return the heaviest items of everything, a category, a brand or a country. Raises BadRequest."""
        if scope != "all":
            _check_id("name", name)
        request = RecommendRequest(count=count, strategy="popular", lang="de" if lang == "de" else "en")
        named = None if scope == "all" else [(self.shop.scope(SCOPES.index(scope), name, now_ms), name)]
        return self._of_nobody(request, self.shop.rules, now_ms, lambda asking: popular(asking, named))

    def _asking_nobody(self, request: RecommendRequest, rules: Compiled, now_ms: int) -> tuple[RequestContext, Acting]:
        """Return a request ready for sources that need nothing of the store, and the rules that act on it."""
        self.shop.phrases.look()
        plan = resolve(request, rules.placement(request.placement), self._settings)
        nobody = empty_users(1)
        visitor = Visitor(request, plan, nobody, recent_events(nobody, now_ms, 0), 0, now_ms)
        acting = rules.acting(visitor.facts)
        pool, nothing = pool_of(self.shop, visitor, acting, rules.version), Vectors(self.shop, [0])
        return RequestContext(self.shop, visitor, pool, None, 0, NO_ROWS, nothing, wanted(visitor, acting)), acting

    def _from_memory(self, request: RecommendRequest, rules: Compiled, now_ms: int) -> Answer:
        return self._of_nobody(request, rules, now_ms, offline_popular)

    def _of_nobody(
        self, request: RecommendRequest, rules: Compiled, now_ms: int, source: Callable[[RequestContext], None]
    ) -> Answer:
        """Return the answer with what one source brings; a rule that cannot be evaluated is left out of it."""
        while True:
            try:
                asking, acting = self._asking_nobody(request, rules, now_ms)
                source(asking)
                return answer_of(asking, acting, rules, [], now_ms)
            except RuleFailed as failed:
                self._leave_out(failed, rules)
