"""The recommender: answers batches of requests from rows alone. HTTP, gRPC and GraphQL all call it."""

import time
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from serving.candidates.strategies import offline_popular, popular
from serving.engine.anonymous import answer_anonymously
from serving.engine.guarded_store import GuardedStore
from serving.engine.request_batch import Live, RequestBatch
from serving.engine.trial_store import TrialStore
from serving.request.answer import Answer
from serving.request.budget import Budget
from serving.request.cursor import BadCursor, decode_cursor
from serving.request.product_fields import Fields
from serving.request.requests import Id, RecommendRequest, first_error
from serving.retrieval.vector_index import VectorIndex
from serving.rules.acting import Compiled
from serving.settings import ServingSettings
from serving.snapshot.snapshot import ServingSnapshot
from state.store.contract import Store

SCOPES = ("all", "category", "brand", "country")
IDS: TypeAdapter[str] = TypeAdapter(Id)


class BadRequest(ValueError):
    """A request that is well formed and cannot be answered; `field` names the wrong part."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def _check_id(field: str, text: str) -> None:
    """Raise BadRequest unless a text can be an id."""
    try:
        IDS.validate_python(text)
    except ValidationError as wrong:
        raise BadRequest(field, first_error(wrong)[1]) from None


def _request(**given: Any) -> RecommendRequest:
    """Return a request of these fields. Raises BadRequest."""
    try:
        return RecommendRequest(**given)
    except ValidationError as wrong:
        raise BadRequest(*first_error(wrong)) from None


def _timed(answer: Answer, started_s: float) -> Answer:
    """Return the answer with the time since `started_s` (`time.perf_counter`)."""
    answer.milliseconds = round((time.perf_counter() - started_s) * 1000, 3)
    return answer


class Recommender:
    """Answers requests from one generation's rows. One thread calls it."""

    def __init__(
        self,
        store: Store | GuardedStore,
        settings: ServingSettings,
        generation: str,
        snapshot: ServingSnapshot | None = None,
    ) -> None:
        """While the store is away answers come from memory. `snapshot`: one that is there already."""
        guarded = store if isinstance(store, GuardedStore) else GuardedStore(store)
        self._live = Live(guarded, snapshot or ServingSnapshot(guarded, settings, generation))
        self.book_missing = False
        """Whether the store has no book of rules though there was one: the last one known goes on."""

    @property
    def store(self) -> GuardedStore:
        """The door to the store that all answers read through."""
        return self._live.store

    @property
    def shop(self) -> ServingSnapshot:
        """The current snapshot."""
        return self._live.snapshot

    @property
    def generation(self) -> str:
        """The generation whose rows are read."""
        return self.shop.generation

    @property
    def anchor(self) -> str | None:
        """The version of the anchor in use, if there is one."""
        return self.shop.index.version if self.shop.index else None

    def frozen(self, budget: Budget) -> "Recommender":
        """Return one that answers as this one does now, for another thread; it keeps nothing that this one uses.

        Whoever has it closes its `store`.
        """
        store = TrialStore(self.store)
        return Recommender(store, self.shop.settings, self.generation, self.shop.frozen(store, budget))

    def set_index(self, index: VectorIndex) -> None:
        """Answer from this anchor from now on."""
        self.shop.set_index(index)

    def replace_snapshot(self, snapshot: ServingSnapshot) -> None:
        """Answer from another snapshot from now on: another generation's, loaded aside. Batches under way do too."""
        self._live.replace(snapshot)

    def refresh(self, now_ms: int, most: int | None = None) -> None:
        """Refresh the rows that are read ahead of requests (`ServingSnapshot.refresh`)."""
        self.shop.subscribe()
        self.shop.refresh(now_ms, most)

    def check(self, request: RecommendRequest) -> None:
        """Raise BadRequest for faults that only the rules and earlier answers reveal."""
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

    def batch(self, requests: Sequence[RecommendRequest], now_ms: int, rules: Compiled | None = None) -> RequestBatch:
        """Return requests to be answered together (`RequestBatch`). `rules` replaces the live book (preview)."""
        return RequestBatch(self._live, requests, rules or self.shop.rules, now_ms)

    def recommend(
        self, requests: Sequence[RecommendRequest], now_ms: int, rules: Compiled | None = None
    ) -> list[Answer]:
        """Return the answers to a batch, whose rows are read while the caller waits."""
        batch = self.batch(requests, now_ms, rules)
        batch.read()
        return batch.answer()

    def from_memory(self, request: RecommendRequest, now_ms: int) -> Answer:
        """Return the answer with the popular list of the last refresh; nothing is read."""
        return answer_anonymously(self.shop, request, self.shop.rules, now_ms, offline_popular)

    def similar_items(
        self, item: str, count: int, now_ms: int, lang: str = "en", fields: Fields | None = None
    ) -> Answer:
        """Return items that occur together with `item`, strongest first; by factors where none is known.

        Raises BadRequest and StoreUnavailable.
        """
        _check_id("item", item)
        request = _request(
            items=[item], exclude=[item], count=count, strategy="bought_together", lang=lang, fields=fields
        )
        started_s = time.perf_counter()
        return _timed(self.batch([request], now_ms).answer_from_rows()[0], started_s)

    def popular(
        self, scope: str, name: str, count: int, now_ms: int, lang: str = "en", fields: Fields | None = None
    ) -> Answer:
        """Return the most popular items of everything, a category, a brand or a country. Raises BadRequest."""
        if scope != "all":
            _check_id("name", name)
        started_s = time.perf_counter()
        request = _request(count=count, strategy="popular", lang=lang, fields=fields)
        named = None if scope == "all" else [(self.shop.scope(SCOPES.index(scope), name, now_ms), name)]
        answer = answer_anonymously(
            self.shop, request, self.shop.rules, now_ms, lambda context: popular(context, named)
        )
        return _timed(answer, started_s)
