"""The kernel that finds the reasons of a batch's items by key, as `score_reasons.reason_key_of` would choose them."""

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit_no_refcount
from serving.scoring.origins import BY_POPULARITY, BY_REPEAT, BY_SECOND
from serving.snapshot.evidence import BOUGHT, evidence_of
from state.rows.item_rows import ADJ
from state.rows.slot_map import ABSENT, find
from state.rows.user_rows import UserRows

REPEATED, IN_SHOP, NEXT, TOGETHER, SECOND, SESSION = 0, 5, 7, 12, 17, 22
"""Kinds of reasons for the kernel: + what is known about the item, or + 1 for what trends."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)

Ints = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


@njit_no_refcount()
def _key_of(
    history: Uint64s, kinds: Bytes, n_events: int, reason: int, seed: np.uint64, item: np.uint64,
    language: int, n_languages: int, trending: Uint64s,
) -> np.uint64:  # fmt: skip
    """Return the key of an item's reason, as `reason_key_of` chooses it; 0: the intervals of purchases decide."""
    about = item if reason == BY_REPEAT else seed
    if reason == BY_REPEAT:
        evidence = evidence_of(history, kinds, n_events, about)
        if evidence == BOUGHT:
            return np.uint64(0)
        kind, about = REPEATED + evidence, np.uint64(0)
    elif reason == BY_SECOND and seed == 0:
        kind = SESSION
    elif reason == BY_POPULARITY or seed == 0:
        at = np.searchsorted(trending, item)
        trends = at < len(trending) and trending[at] == item
        kind, about = IN_SHOP + int(trends), np.uint64(0)
    else:
        kind = SECOND if reason == BY_SECOND else NEXT if reason == ADJ else TOGETHER
        kind += evidence_of(history, kinds, n_events, about)
    return about + np.uint64(n_languages * kind + language + 1) * SPREAD


@njit_no_refcount()
def find_numbers(
    users: UserRows, n: Ints, reason: Ints, seeds: Uint64s, items: Uint64s, languages: Ints, n_languages: int,
    trending: Uint64s, table: Uint64s, slot_at: npt.NDArray[np.int32], number_at: Ints, keys: Uint64s, numbers: Ints,
) -> int:  # fmt: skip
    """Write the number of each item's phrase, ABSENT where it is not known by its key; return how many are not."""
    absent = 0
    for b in range(len(n)):
        history, kinds, n_events = users[b].item, users[b].kind, users[b].n
        for k in range(n[b]):
            keys[b, k] = _key_of(
                history, kinds, n_events, reason[b, k], seeds[b, k], items[b, k], languages[b], n_languages, trending
            )  # fmt: skip
            slot = find(table, slot_at, keys[b, k]) if keys[b, k] != 0 else ABSENT
            numbers[b, k] = number_at[slot] if slot != ABSENT else ABSENT
            absent += slot == ABSENT
    return absent
