"""The reasons of the mixture's candidates: each follows from the largest term of the score."""

import numpy as np
import numpy.typing as npt

from serving.candidates.reason_keys import find_numbers
from serving.candidates.repurchase import repeat_reason_key
from serving.rendering.reason_cache import ReasonKey
from serving.scoring.origins import BY_POPULARITY, BY_REPEAT, BY_SECOND
from serving.snapshot.evidence import BOUGHT, CARTED, INTERESTED, VIEWED
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor
from state.rows.item_rows import ADJ
from state.rows.slot_map import ABSENT
from state.rows.user_rows import UserRows

WHOLE_SHOP = {"en": "the whole shop", "de": "der ganzen Auswahl"}
LANGUAGES = tuple(WHOLE_SHOP)
IN_SCOPE = {False: "popular_in", True: "trending_in"}
BECAUSE = {
    VIEWED: "because_viewed", INTERESTED: "because_interested", CARTED: "because_carted", BOUGHT: "because_bought"
}  # fmt: skip
"""Code of the reason by what the visitor did with an item of the session (`evidence_of`)."""
Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


def reason_key_of(shop: ServingSnapshot, visitor: Visitor, reason: int, seed: int, item: int) -> ReasonKey:
    """Return the key of the reason of an item, given what decided and the item of the event it came from (0: none)."""
    lang = visitor.request.lang
    if reason == BY_REPEAT:
        return repeat_reason_key(visitor, item)
    if reason == BY_SECOND and seed == 0:
        return "cooccurrence", "matches_taste", lang, None
    if reason == BY_POPULARITY or seed == 0:
        return "popular", IN_SCOPE[shop.trends(item)], lang, WHOLE_SHOP[lang]
    without = "related_to" if reason == BY_SECOND else "seen_together"
    return "next_item" if reason == ADJ else "cooccurrence", BECAUSE.get(visitor.evidence(seed), without), lang, seed


def reason_numbers(
    shop: ServingSnapshot,
    visitors: dict[int, Visitor],
    users: UserRows,
    n: Ints,
    reason: Ints,
    seeds: Uint64s,
    items: Uint64s,
) -> Ints:
    """Return the number of the reason of each item of lists (B, K), given the visitors of the lists by place."""
    languages = np.zeros(len(n), np.int64)
    for b, visitor in visitors.items():
        if visitor.request.lang != LANGUAGES[0]:
            languages[b] = LANGUAGES.index(visitor.request.lang)
    rendered, numbers, keys = shop.reasons.rendered, np.zeros(items.shape, np.int64), np.zeros(items.shape, np.uint64)
    table = rendered.keys
    absent = find_numbers(
        users,
        n,
        reason,
        seeds,
        items,
        languages,
        len(LANGUAGES),
        shop.trending,
        table.table,
        table.slot_at,
        rendered.number_at,
        keys,
        numbers,
    )
    if absent:
        new: dict[int, int] = {}
        places = np.nonzero(numbers == ABSENT)
        for b, k, key in zip(*(at.tolist() for at in places), keys[places].tolist(), strict=True):
            number = new.get(key)
            if number is None:
                reason_key = reason_key_of(shop, visitors[b], int(reason[b, k]), int(seeds[b, k]), int(items[b, k]))
                number = rendered.add(reason_key) if key else rendered.number(reason_key)
                if key and shop.reasons.is_final(reason_key):
                    new[key] = number
            numbers[b, k] = number
        rendered.record(new)
    return numbers
