"""What the mixture's candidates owe their places to, said of each of them."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from schemas.events import Kind
from serving.candidates.repurchase import repurchase_reason_key
from serving.rendering.reason_cache import ReasonKey
from serving.scoring.origins import BY_POPULARITY, BY_REPEAT
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor
from state.rows.item_rows import ADJ
from state.rows.slot_map import ABSENT, find
from state.rows.user_rows import KIND_MASK, UserRows

WHOLE_SHOP = {"en": "the whole shop", "de": "der ganzen Auswahl"}
LANGUAGES = tuple(WHOLE_SHOP)
IN_SCOPE = {False: "popular_in", True: "trending_in"}
PURCHASE = int(Kind.PURCHASE)
REPEATED, IN_SHOP, NEXT, TOGETHER = 0, 2, 4, 6
"""Kinds of phrases for the kernel; + 1 for what trends, or for what comes of a purchase."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


def phrase_of(shop: ServingSnapshot, visitor: Visitor, reason: int, seed: int, item: int) -> ReasonKey:
    """Return what is said of an item, given what decided and the item of the event it came from (0: none)."""
    lang = visitor.request.lang
    if reason == BY_REPEAT:
        return repurchase_reason_key(visitor, item)
    if reason == BY_POPULARITY or seed == 0:
        return "popular", IN_SCOPE[shop.trends(item)], lang, WHOLE_SHOP[lang]
    source = "next_item" if reason == ADJ else "cooccurrence"
    return source, "because_bought" if seed in visitor.bought else "because_viewed", lang, seed


@njit_no_refcount()
def _key_of(
    history: Uint64s, kinds: npt.NDArray[np.uint8], n_events: int, reason: int, seed: np.uint64, item: np.uint64,
    language: int, trending: Uint64s,
) -> np.uint64:  # fmt: skip
    """Return a key for what is said of an item, as `phrase_of` chooses it; 0: the intervals of purchases decide."""
    about = item if reason == BY_REPEAT else seed
    bought = False
    for k in range(n_events):
        bought |= history[k] == about and kinds[k] & KIND_MASK == PURCHASE
    if reason == BY_REPEAT:
        if bought:
            return np.uint64(0)
        kind, about = REPEATED, np.uint64(0)
    elif reason == BY_POPULARITY or seed == 0:
        at = np.searchsorted(trending, item)
        trends = at < len(trending) and trending[at] == item
        kind, about = IN_SHOP + int(trends), np.uint64(0)
    else:
        kind = (NEXT if reason == ADJ else TOGETHER) + bought
    return about + np.uint64(len(LANGUAGES) * kind + language + 1) * SPREAD


@njit_no_refcount()
def _look_up(
    users: UserRows, n: Ints, reason: Ints, seeds: Uint64s, items: Uint64s, languages: Ints, trending: Uint64s,
    table: Uint64s, slot_at: npt.NDArray[np.int32], number_at: Ints, keys: Uint64s, said: Ints,
) -> int:  # fmt: skip
    """Write the number of each item's phrase, ABSENT where it is not known by its key; return how many are not."""
    absent = 0
    for b in range(len(n)):
        history, kinds, n_events = users[b].item, users[b].kind, users[b].n
        for k in range(n[b]):
            keys[b, k] = _key_of(
                history, kinds, n_events, reason[b, k], seeds[b, k], items[b, k], languages[b], trending
            )  # fmt: skip
            slot = find(table, slot_at, keys[b, k]) if keys[b, k] != 0 else ABSENT
            said[b, k] = number_at[slot] if slot != ABSENT else ABSENT
            absent += slot == ABSENT
    return absent


def numbers_of_said(
    shop: ServingSnapshot,
    visitors: dict[int, Visitor],
    users: UserRows,
    n: Ints,
    reason: Ints,
    seeds: Uint64s,
    items: Uint64s,
) -> Ints:
    """Return the number of what is said of each item of lists (B, K), given the visitors of the lists by place."""
    languages = np.zeros(len(n), np.int64)
    for b, visitor in visitors.items():
        if visitor.request.lang != LANGUAGES[0]:
            languages[b] = LANGUAGES.index(visitor.request.lang)
    rendered, said, keys = shop.phrases.rendered, np.zeros(items.shape, np.int64), np.zeros(items.shape, np.uint64)
    table = rendered.keys
    absent = _look_up(
        users,
        n,
        reason,
        seeds,
        items,
        languages,
        shop.trending,
        table.table,
        table.slot_at,
        rendered.number_at,
        keys,
        said,
    )
    if absent:
        new: dict[int, int] = {}
        places = np.nonzero(said == ABSENT)
        for b, k, key in zip(*(at.tolist() for at in places), keys[places].tolist(), strict=True):
            number = new.get(key)
            if number is None:
                phrase = phrase_of(shop, visitors[b], int(reason[b, k]), int(seeds[b, k]), int(items[b, k]))
                number = rendered.add(phrase) if key else rendered.number(phrase)
                if key and shop.phrases.is_final(phrase):
                    new[key] = number
            said[b, k] = number
        rendered.learn(new)
    return said
