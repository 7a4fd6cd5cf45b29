"""The order of a list's candidates when variety, or the departments of what the visitor did, count beside relevance."""

import numpy as np
import numpy.typing as npt

from serving.candidates.context import RequestContext
from serving.ranking.apply_rules import Order
from serving.ranking.mmr_dpp import METHODS, Alike, calibrated, department, similarity
from serving.snapshot.snapshot import ServingSnapshot

MAX_VARIED = 400
"""Candidates among which a diverse list is looked for."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def varied(context: RequestContext, order: Order, scores: Floats, rows: Rows) -> Order:
    """Return candidates in the order of the request's method; those not needed follow in their old order."""
    shop, plan, request = context.shop, context.visitor.plan, context.visitor.request
    first, rest = order[:MAX_VARIED], order[MAX_VARIED:]
    relevance = scores[first] / scores[first].max()
    if request.diversity_method == "calibrated":
        past = np.concatenate((context.visitor.history_items, context.visitor.context))
        known = shop.catalogue.rows_of(past)
        departments, wanted = _departments(shop, rows[first]), _departments(shop, known[known >= 0])
        chosen = calibrated(relevance, departments, wanted, plan.diversity, plan.count)
    else:
        method = METHODS[request.diversity_method]
        chosen = method(relevance, _alike(shop, rows[first]), plan.diversity, plan.count).tolist()
    left = np.ones(len(first), bool)
    left[chosen] = False
    return np.concatenate((first[chosen], first[left], rest))


def _departments(shop: ServingSnapshot, rows: Rows) -> list[str]:
    return [department(shop.catalogue.category.get(row)) for row in rows.tolist()]


def _alike(shop: ServingSnapshot, rows: Rows) -> Alike:
    """Return how alike items are: by the embedding of their rows, else by their categories."""
    embedding, slots = shop.items.embedding, shop.items.slots.find(shop.catalogue.hashes()[rows])
    vectors = np.zeros((len(rows), embedding.shape[1] if len(embedding) else 0), np.float32)
    if len(embedding):
        vectors[slots >= 0] = embedding[slots[slots >= 0]]
    return similarity(vectors, shop.catalogue.category.codes(rows))
