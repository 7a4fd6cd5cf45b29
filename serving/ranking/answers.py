"""From candidates to an answer: rules, variety, exploration, reasons, and the cursor of the next page."""

import random

import numpy as np
import numpy.typing as npt

from schemas.compiled.distinct import distinct
from serving.candidates.context import RequestContext
from serving.candidates.pool import Pool
from serving.ranking.apply_rules import BookRules, arrange
from serving.ranking.contributions import contributions
from serving.ranking.diversify import varied
from serving.rendering.items import Items, RenderedReason
from serving.rendering.lists import LazyItems
from serving.request.answer import Answer, ItemList, RuleTrace
from serving.request.cursor import encode_cursor
from serving.request.reasons import reason
from serving.rules.acting import Acting, Compiled
from serving.rules.experiments import Assigned
from serving.snapshot.scratch import RANK_DECAY
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Hashes, Visitor

MAX_LEFT_OUT = 50
IDS = random.Random()
"""The source of request ids, seeded by the system; a number from the system itself takes 3 µs."""
NOTHING = np.zeros(0, np.int64)
NO_DATA, BY_RULES = "no_data", "rules"
"""Places on the fallback ladder of lists that no source has an item in."""


def answer_from_batch(
    shop: ServingSnapshot, visitor: Visitor, items: LazyItems, fallback: str, rules: Compiled
) -> Answer:
    """Return the answer with a list that was made for its batch (`serving.ranking.batch_lists`)."""
    return _answer(shop, visitor, items, items.hashes, fallback, rules)


def answer_from_pool(
    context: RequestContext, acting: Acting, rules: Compiled, skipped: list[str], now_ms: int
) -> Answer:
    """Return the answer to a request whose sources have brought their candidates; `skipped` names those that did not.

    This is the plain way of one list; `serving.ranking.batch_lists` makes most lists of a batch at once.
    """
    shop, visitor, pool = context.shop, context.visitor, context.pool
    request, plan = visitor.request, visitor.plan
    unmet = _unmet(context) if plan.explore else NOTHING
    n_explored = min(plan.explore, plan.count - 1, len(unmet))
    items, traces, fallback = _items(context, acting, rules.version, plan.count - n_explored, len(visitor.shown))
    for row in [row for row in unmet.tolist() if row not in items.rows][:n_explored]:
        items.rows.append(row)
        items.scores.append(items.scores[-1] * RANK_DECAY if items.scores else 1.0)
        items.reasons.append(shop.reasons["explore", "exploration", request.lang, None])
        items.rules.append(())
    if fallback == NO_DATA and len(items):
        fallback = BY_RULES
    answer = _answer(shop, visitor, items, shop.catalogue.hashes()[items.rows], fallback, rules)
    answer.skipped_sources = skipped
    if request.explain:
        answer.rules = _left_out(context, acting, rules.version) + traces + _not_acting(rules)
        items.contributions = contributions(context, [one.item for one in items], now_ms)
    pool.tiers.clear()  # breaks a reference cycle, so that it is freed without the garbage collector
    return answer


def name_arms(answer: Answer, assigned: Assigned) -> None:
    """Write a visitor's arms into an answer; its attribution names them unless the request chose one."""
    answer.experiments = dict(assigned.arms)
    if not assigned.forced:
        answer.attribution = ".".join((*answer.attribution.split(".")[:4], assigned.text))


def _answer(
    shop: ServingSnapshot, visitor: Visitor, items: ItemList, shown: Hashes, fallback: str, rules: Compiled
) -> Answer:
    """Return an answer with these items, `shown` (their id hashes) on this page."""
    request_id = f"{IDS.getrandbits(128):032x}"
    placement, strategy = visitor.request.placement or "", visitor.plan.strategy
    attribution = f"{request_id}.{placement}.{strategy}.{rules.version}"
    anchor, following = shop.index.version if shop.index else None, None
    if len(items) == visitor.plan.count:
        following = encode_cursor(np.concatenate((visitor.shown, shown)) if visitor.request.cursor else shown)
    return Answer(
        items, request_id, shop.generation, anchor, fallback, placement, strategy, rules.version, attribution, following
    )


def _items(
    context: RequestContext, acting: Acting, version: int, count: int, offset: int
) -> tuple[Items, list[RuleTrace], str]:
    """Return the items of the list, what the rules did, and the place on the fallback ladder that most come from."""
    shop, pool = context.shop, context.pool
    found, fields = pool.candidates(), context.visitor.plan.fields
    if not acting.rules and context.visitor.plan.diversity == 0:
        # As the sources brought them: the usual case, and a quick one.
        rows = found.row[:count].tolist()
        reasons = _reasons_of(pool, found.tier[:count], found.place[:count])
        items = Items(shop.heads, rows, found.score[:count].tolist(), reasons, [()] * len(rows), fields)
        return items, [], _level_of_most(pool, found.tier[:count])
    vary = (lambda *args: varied(context, *args)) if context.visitor.plan.diversity > 0 else None
    explain = context.visitor.request.explain
    rules = BookRules(acting, shop.selections, version, shop.catalogue)
    placed, traces = arrange(pool, rules, count, offset, vary, explain)
    brought = [k for k in placed.candidates if k >= 0]
    reasons = _reasons_of(pool, found.tier[brought], found.place[brought])
    for at, rule in placed.promoted.items():
        why = reason("promoted", context.lang, rule=rule)
        if placed.candidates[at] < 0:
            reasons.insert(at, RenderedReason("rule", why))
        else:
            reasons[at] = RenderedReason(reasons[at].source, why)
    items = Items(shop.heads, placed.rows, placed.scores, reasons, placed.rules, fields)
    return items, traces, _level_of_most(pool, found.tier[brought])


def _level_of_most(pool: Pool, tiers: npt.NDArray[np.int64]) -> str:
    """Return the place on the fallback ladder of most of the candidates shown, the first of equal ones."""
    if not len(tiers):
        return NO_DATA
    counts: dict[str, int] = {}
    for tier in tiers.tolist():
        level = pool.tiers[tier].level
        counts[level] = counts.get(level, 0) + 1
    return max(counts, key=counts.__getitem__)


def _unmet(context: RequestContext) -> npt.NDArray[np.int64]:
    """Return rows of items at random that no source brought and that the visitor has not had.

    Enough that some are left when rules have placed items that no source brought.
    """
    visitor, plan = context.visitor, context.visitor.plan
    held = context.pool.hold_back(np.concatenate((visitor.history_items, visitor.context)))
    found = context.pool.unseen_sample(plan.explore + plan.count, np.random.default_rng(visitor.request.seed))
    context.pool.release(held)
    return found


def _reasons_of(pool: Pool, tiers: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> list[RenderedReason]:
    """Return the reasons of candidates, given their tiers and their places in them."""
    if not len(tiers):
        return []
    first = pool.tiers[int(tiers[0])]
    if (tiers == tiers[0]).all():
        return first.reasons(places.tolist())
    reasons = {tier: iter(pool.tiers[tier].reasons(places[tiers == tier].tolist())) for tier in set(tiers.tolist())}
    return [next(reasons[tier]) for tier in tiers.tolist()]


def _not_acting(rules: Compiled) -> list[RuleTrace]:
    """Return a trace for each rule of the book that does not act at all."""
    return [RuleTrace(rule, "none", f"left out: {why}") for rule, why in rules.skipped.items()]


def _left_out(context: RequestContext, acting: Acting, version: int) -> list[RuleTrace]:
    """Return traces of the likeliest items that rules left out, and of those that the catalogue does not have."""
    shop = context.shop
    popular = shop.catalogue.rows_of(shop.popular.hashes)
    candidates = distinct(np.concatenate((context.rows, popular)))
    candidates = candidates[candidates >= 0]
    traces = []
    if shop.catalogue.titled_only:
        rows = [row for row in candidates.tolist() if not shop.catalogue.has_title(row)][:MAX_LEFT_OUT]
        if rows:
            ids = [shop.catalogue.ids[row] for row in rows]
            traces.append(RuleTrace("catalogue", "none", "left out: without a title", ids))
    for rule in acting.limiting:
        gone = candidates[shop.selections.hidden_by(rule, version)[candidates]][:MAX_LEFT_OUT]
        items = [shop.catalogue.ids[row] for row in gone.tolist()]
        traces.append(RuleTrace(rule.id, rule.action, "left out, of the likeliest", items))
    return traces
