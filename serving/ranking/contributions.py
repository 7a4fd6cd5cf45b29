"""How much each event of the session contributes to an item's score.

The share of an event is 1 − score without it / score with it: the part of the score that
would be missing without the event. The mixture itself computes both scores, so a share is
true of the formula in use. Trees are left out: they only order the likeliest items.
Shares need not add up to one: two events can each be enough.
"""

from typing import Any

import numpy as np

from schemas.ids import hash_id
from serving.candidates.context import RequestContext
from serving.scoring.scorer import REPEAT_MODES
from serving.scoring.sessions import padded_sessions

MAX_EVENTS = 10
LEAST_SHARE = 0.01


def contributions(context: RequestContext, items: list[str], now_ms: int) -> list[list[dict[str, Any]]]:
    """Return for each item `{"kind", "item", "title", "share"}` of the session's latest items, largest first."""
    visitor, shop = context.visitor, context.shop
    session = visitor.session
    if context.scored is None or not len(session):
        return [[] for _ in items]
    seeds = list(dict.fromkeys(session.tolist()[::-1]))[:MAX_EVENTS]
    sessions = [session, *(session[session != np.uint64(seed)] for seed in seeds)]
    scored = shop.score(padded_sessions(sessions), REPEAT_MODES[visitor.plan.repeat], now_ms, by_trees=False)
    chances = [
        dict(zip(scored.item[b, :n].tolist(), scored.probability[b, :n].tolist(), strict=True))
        for b, n in enumerate(scored.n.tolist())
    ]
    found = []
    for item in items:
        h = hash_id(item)
        with_all = chances[0].get(h, 0.0)
        parts: list[dict[str, Any]] = []
        for seed, without in zip(seeds, chances[1:], strict=True):
            share = 1.0 - without.get(h, 0.0) / with_all if with_all else 0.0
            if share >= LEAST_SHARE:
                name = shop.text(seed)
                kind = "bought" if seed in visitor.bought else "viewed"
                parts.append({"kind": kind, "item": name, "title": shop.title(seed, name), "share": round(share, 4)})
        found.append(sorted(parts, key=lambda part: float(part["share"]), reverse=True))
    return found
