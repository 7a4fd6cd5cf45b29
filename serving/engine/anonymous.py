"""Answers that read no visitor's row: the list in memory, and the popular items of a scope."""

from collections.abc import Callable

import numpy as np

from serving.candidates.context import RequestContext
from serving.candidates.pool import pool_of, wanted
from serving.ranking.answers import answer_from_pool
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled, RuleFailed
from serving.snapshot.recent_events import recent_events
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor, resolve
from serving.snapshot.visitor_rows import NOBODY
from state.rows.user_rows import empty_users

NO_ROWS = np.zeros(0, np.int64)


def answer_anonymously(
    snapshot: ServingSnapshot, request: RecommendRequest, rules: Compiled, now_ms: int,
    source: Callable[[RequestContext], None],
) -> Answer:  # fmt: skip
    """Return the answer with what one source brings; a rule that cannot be evaluated is skipped from now on.

    Raises StoreUnavailable where the source reads.
    """
    snapshot.reasons.refresh()
    nobody = empty_users(1)
    recent = recent_events(nobody, now_ms, 0)
    options = resolve(request, rules.placement(request.placement), snapshot.settings)
    visitor = Visitor(request, options, nobody, recent, 0, now_ms)
    while True:
        try:
            acting = rules.acting(visitor.facts)
            pool = pool_of(snapshot, visitor, acting, rules.version)
            vectors = snapshot.user_vectors([NOBODY])
            context = RequestContext(snapshot, visitor, pool, None, 0, NO_ROWS, vectors, wanted(visitor, acting))
            source(context)
            return answer_from_pool(context, acting, rules, [], now_ms)
        except RuleFailed as failed:
            snapshot.selections.skip_failing(rules, failed)
