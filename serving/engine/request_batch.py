"""One batch under way: `read`, then `answer`, even if the store, the generation or a rule changes or fails."""

import time
from collections.abc import Sequence

from serving.candidates.strategies import offline_popular
from serving.engine.anonymous import answer_anonymously
from serving.engine.answer_cache import AnswerCache
from serving.engine.guarded_store import GuardedStore, Wake
from serving.engine.pipeline import Pipeline
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled, RuleFailed
from serving.snapshot.snapshot import ServingSnapshot
from state.store.contract import StoreUnavailable


class Live:
    """The current snapshot and cache. A new generation replaces both as a whole."""

    def __init__(self, store: GuardedStore, snapshot: ServingSnapshot) -> None:
        self.store, self.snapshot, self.cache = store, snapshot, AnswerCache()

    def replace(self, snapshot: ServingSnapshot) -> None:
        """Answer from `snapshot` from now on; the one before is closed."""
        before, self.snapshot, self.cache = self.snapshot, snapshot, AnswerCache()
        before.close()


class RequestBatch:
    """Requests that are answered together, each as it would be alone. `read` may be called once, then `answer` once."""

    def __init__(self, live: Live, requests: Sequence[RecommendRequest], rules: Compiled, now_ms: int) -> None:
        """`now_ms`: the time that the answers are for."""
        self.requests, self._live, self._rules, self._now_ms = requests, live, rules, now_ms
        self._started_s = time.perf_counter()
        self._pipeline = self._new_pipeline()

    def _new_pipeline(self) -> Pipeline:
        live = self._live
        return Pipeline(live.snapshot, live.cache, self.requests, self._rules, self._now_ms, self._started_s)

    def read(self) -> None:
        """Send the read of the visitors' rows and return at once; nothing is sent while the store is away."""
        if not self._live.store.is_away:
            self._pipeline.read()

    def when_ready(self, wake: Wake) -> None:
        """Call `wake` once, in a later turn of the loop: when the rows are here, or are not going to be in time."""
        self._live.store.when_answered(wake)

    def answer(self) -> list[Answer]:
        """Return the answers, in the order of the requests.

        Where the store fails they come from memory; they are of the snapshot that is live now. A rule that cannot be
        evaluated is skipped from now on. What else is read may block for as long as the store allows.
        """
        live = self._live
        if self._pipeline.snapshot is not live.snapshot:  # another generation has been taken over since `read`
            self._pipeline = self._new_pipeline()
        live.store.allow(self._started_s)
        try:
            answers = self.answer_from_rows()
        except StoreUnavailable:
            answers = [
                answer_anonymously(live.snapshot, request, self._rules, self._now_ms, offline_popular)
                for request in self.requests
            ]
        milliseconds = round((time.perf_counter() - self._started_s) * 1000, 3)
        for answer in answers:
            answer.milliseconds = milliseconds
        return answers

    def answer_from_rows(self) -> list[Answer]:
        """Return the answers. Raises StoreUnavailable; a rule that cannot be evaluated is skipped from now on."""
        while True:
            try:
                return self._pipeline.answer()
            except RuleFailed as failed:
                self._live.snapshot.selections.skip_failing(self._rules, failed)
            self._pipeline = self._new_pipeline()
