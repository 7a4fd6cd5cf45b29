"""From candidates to an answer: rules, variety, exploration, reasons, and the cursor of the next page."""

import uuid

import numpy as np
import numpy.typing as npt

from serving.apply_rules import Order, Placed, arrange
from serving.asking import Asking
from serving.cursor import encode_cursor
from serving.diversity import METHODS, similarities
from serving.explain import contributions
from serving.reasons import Reason, reason
from serving.requests import Answer, Recommendation, RuleTrace
from serving.rules import Compiled, Limiting, Rule

MAX_VARIED = 400
"""Candidates among which a diverse list is looked for: the similarities are a matrix of them."""
MAX_LEFT_OUT = 50
NOTHING = np.zeros(0, np.int64)


def answer_of(asking: Asking, acting: tuple[Rule, ...], rules: Compiled, left_out: list[str], now_ms: int) -> Answer:
    """Return the answer to a request whose sources have brought their candidates."""
    shop, visitor, pool = asking.shop, asking.visitor, asking.pool
    request, plan, catalogue = visitor.request, visitor.plan, shop.catalogue
    unmet = pool.unmet() if plan.explore else NOTHING
    n_explored = min(plan.explore, plan.count - 1, len(unmet))
    items, traces, rows = _items(asking, acting, rules.version, plan.count - n_explored, len(visitor.shown))
    explored = _explored(unmet, rows, n_explored, request.seed)
    for row in explored:
        why = reason("exploration", request.lang)
        items.append(Recommendation(catalogue.ids[row], catalogue.titles[row], 0.0, "explore", why))
    answer = Answer(items, uuid.uuid4().hex, shop.generation, shop.index.version if shop.index else None, "")
    answer.fallback = pool.tiers[0].level if pool.tiers else "rules" if items else "nothing_known"
    answer.placement, answer.strategy, answer.rules_version = request.placement or "", plan.strategy, rules.version
    answer.attribution = f"{answer.request_id}.{answer.placement}.{plan.strategy}.{rules.version}"
    answer.left_out = left_out
    rows += explored
    if len(items) == plan.count:
        answer.next = encode_cursor(np.concatenate((visitor.shown, catalogue.hashes()[rows])))
    if request.explain:
        answer.rules = _left_out_by_rules(asking, acting, rules.version) + traces
        for one, parts in zip(items, contributions(asking, [one.item for one in items], now_ms), strict=True):
            one.contributions = parts
    return answer


def _items(
    asking: Asking, acting: tuple[Rule, ...], version: int, count: int, offset: int
) -> tuple[list[Recommendation], list[RuleTrace], list[int]]:
    """Return the items of the list, what the rules did, and the items' catalogue rows."""
    catalogue, pool = asking.shop.catalogue, asking.pool
    rows, scores, _, origin = pool.arrays()
    ids, titles, tiers = catalogue.ids, catalogue.titles, pool.tiers
    if not acting and asking.visitor.plan.diversity == 0:
        # As the sources brought them: the usual case, and a quick one.
        found = []
        shown = rows[:count].tolist()
        origins = origin[:, :count].tolist()
        for row, score, t, k in zip(shown, scores[:count].tolist(), *origins, strict=True):
            tier = tiers[t]
            found.append(Recommendation(ids[row], titles[row], score, tier.source(k), tier.reason(k)))
        return found, [], shown
    vary = (lambda *args: _varied(asking, *args)) if asking.visitor.plan.diversity > 0 else None
    explain = asking.visitor.request.explain
    placed, traces = arrange(pool, acting, asking.shop.selections, version, catalogue, count, offset, vary, explain)
    items = []
    score_of, (tier_of, place_in) = scores.tolist(), origin.tolist()
    for place in placed:
        k = place.candidate
        score, source, why = 0.0, "rule", None
        if k >= 0:
            tier = tiers[tier_of[k]]
            score, source = score_of[k], tier.source(place_in[k])
            why = None if place.promoted_by else tier.reason(place_in[k])
        why = why or _promoted(asking, place)
        items.append(Recommendation(ids[place.row], titles[place.row], score, source, why, place.rules))
    return items, traces, [place.row for place in placed]


def _promoted(asking: Asking, place: Placed) -> Reason:
    return reason("promoted", asking.lang, rule=place.promoted_by)


def _varied(asking: Asking, order: Order, worth: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> Order:
    """Return the candidates in an order that repeats itself less; what is not needed stays behind."""
    shop, plan = asking.shop, asking.visitor.plan
    first, rest = order[:MAX_VARIED], order[MAX_VARIED:]
    hashes, embedding = shop.catalogue.hashes()[rows[first]], shop.items.embedding
    slots = shop.items.slots.find(hashes)
    vectors = np.zeros((len(first), embedding.shape[1] if len(embedding) else 0), np.float32)
    if len(embedding):
        vectors[slots >= 0] = embedding[slots[slots >= 0]]
    alike = similarities(vectors, [shop.catalogue.category.get(row) for row in rows[first].tolist()])
    relevance = worth[first] / max(float(worth[first].max()), 1e-300)
    chosen = METHODS[asking.visitor.request.diversity_method](relevance, alike, plan.diversity, plan.count)
    left = np.ones(len(first), bool)
    left[chosen] = False
    return np.concatenate((first[chosen], first[left], rest))


def _explored(unmet: npt.NDArray[np.int64], placed: list[int], n: int, seed: int | None) -> list[int]:
    """Return `n` rows at random for the end of the list, of those no source brought and no rule has placed."""
    if n <= 0:
        return []
    rows = np.setdiff1d(unmet, placed)
    chosen: list[int] = np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False).tolist()
    return chosen


def _left_out_by_rules(asking: Asking, acting: tuple[Rule, ...], version: int) -> list[RuleTrace]:
    """Say which of the likeliest items the rules left out."""
    shop = asking.shop
    popular = shop.catalogue.rows_of(shop.popular.hashes)
    candidates = np.unique(np.concatenate((asking.rows, popular)))
    candidates = candidates[candidates >= 0]
    traces = []
    for rule in acting:
        if isinstance(rule, Limiting):
            gone = candidates[shop.selections.left_out(rule, version)[candidates]][:MAX_LEFT_OUT]
            items = [shop.catalogue.ids[row] for row in gone.tolist()]
            traces.append(RuleTrace(rule.id, rule.action, "left out, of the likeliest", items))
    return traces
