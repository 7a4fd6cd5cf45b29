"""Rows a lane has one or a few of: its globals, scope lists, country lists and the item feed.

Globals are one int64 vector behind an 8-byte version; the offsets below are its
layout. A scope list (of everything, a category, a brand) is `version u32 · n u32 ·
item u64[n] · short f32[n] · long f32[n]`, ascending by item hash; the scores are
`state.rows.decay.forward_score` of the two half-lives. It holds the top N by the long and
the top N by the short one. A country list counts for itself: `version u32 · n u32 · item u64[n] · pop i64[n][2][2] ·
epoch i32[n][2]`, ascending by item hash, decayed as in item rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from state.rows.decay import forward_score, merge

VERSION = 1
N_CURRENT_CELLS, N_EARLIER_CELLS = 72, 144
CURRENT = 0  # (hits, trials) per cell of the current item's repeat table
EARLIER = CURRENT + 2 * N_CURRENT_CELLS  # the same for earlier items
SESSIONS = EARLIER + 2 * N_EARLIER_CELLS
EVENTS = SESSIONS + 1  # history events folded
REPEAT = EVENTS + 1  # sums of the items' q0, n0, q1, n1
COUNT = REPEAT + 4  # sum of the items' undecayed weight
POP = COUNT + 1  # short (epoch, newest, before), long (epoch, newest, before)
PRICES = POP + 6  # histogram of ln(price): 64 buckets of 0.25 from ln(0.01)
N_PRICE_BUCKETS = 64
FEED = PRICES + N_PRICE_BUCKETS  # entries in the item feed
DEDUPE = FEED + 1  # event ids ever remembered
MAX_TS = DEDUPE + 1  # newest event time folded
LATE = MAX_TS + 1  # events counted in popularity only
DUPLICATES = LATE + 1
SIZE = 516

FEED_CHUNK = 512
MAX_COUNTRY_ITEMS = 400

ALL, CATEGORY, BRAND, COUNTRY = 0, 1, 2, 3


class ScopeList(NamedTuple):
    """The most popular items of one top list, ascending by hash."""

    item: npt.NDArray[np.uint64]
    short: npt.NDArray[np.float32]
    long: npt.NDArray[np.float32]


class CountryList(NamedTuple):
    """Counters of a country's items; the first `n` of MAX_COUNTRY_ITEMS are in use, ascending by hash."""

    n: int
    item: npt.NDArray[np.uint64]
    pop: npt.NDArray[np.int64]  # (MAX_COUNTRY_ITEMS, 2, 2)
    epoch: npt.NDArray[np.int32]  # (MAX_COUNTRY_ITEMS, 2)


def scope_hash(kind: int, id_hash: int) -> int:
    """Return the hash that names a scope's row: its kind mixed into the id hash (0 for ALL).

    >>> scope_hash(ALL, 0) != scope_hash(CATEGORY, 7) != scope_hash(BRAND, 7)
    True
    """
    return (id_hash ^ (kind * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF


def encode_globals(values: npt.NDArray[np.int64]) -> bytes:
    """Return the row of a lane's totals, int64 (SIZE,)."""
    return np.concatenate((np.array([VERSION], np.int64), values)).tobytes()


def decode_globals(value: bytes | None) -> npt.NDArray[np.int64]:
    """Return the int64 vector, zeros for a lane that has none yet."""
    if value is None:
        return np.zeros(SIZE, np.int64)
    vector = np.frombuffer(value, np.int64)
    if vector[0] != VERSION or len(vector) != SIZE + 1:
        raise ValueError(f"globals row has version {vector[0]}; this program reads version {VERSION}")
    return vector[1:].copy()


def sum_globals(values: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """Return the globals of all lanes as one vector: counts add up, popularity as if one lane had counted it all."""
    parts = [decode_globals(value) for value in values]
    total: npt.NDArray[np.int64] = np.sum(parts, axis=0)
    for at in (POP, POP + 3):
        epoch, sums = np.zeros(1, np.int64), np.zeros((1, 2), np.int64)
        epoch[0], sums[0] = parts[0][at], parts[0][at + 1 : at + 3]
        for part in parts[1:]:
            merge(epoch, sums, 0, *part[at : at + 3].tolist())
        total[at], total[at + 1 : at + 3] = epoch[0], sums[0]
    return total


def encode_scope(scope: ScopeList) -> bytes:
    """Return the row of a top list."""
    head = np.array([VERSION, len(scope.item)], np.uint32).tobytes()
    return head + scope.item.tobytes() + scope.short.tobytes() + scope.long.tobytes()


def decode_scope(value: bytes | None) -> ScopeList:
    """Return the list; empty for a scope without a row."""
    if value is None:
        return ScopeList(np.zeros(0, np.uint64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    version, n = np.frombuffer(value, np.uint32, 2).tolist()
    if version != VERSION:
        raise ValueError(f"scope list has version {version}; this program reads version {VERSION}")
    return ScopeList(
        np.frombuffer(value, np.uint64, n, 8).copy(),
        np.frombuffer(value, np.float32, n, 8 + 8 * n).copy(),
        np.frombuffer(value, np.float32, n, 8 + 12 * n).copy(),
    )


def encode_country(country: CountryList) -> bytes:
    """Return the row of a country's counts."""
    n = country.n
    head = np.array([VERSION, n], np.uint32).tobytes()
    return head + country.item[:n].tobytes() + country.pop[:n].tobytes() + country.epoch[:n].tobytes()


def decode_country(value: bytes | None) -> CountryList:
    """Return the list with room for MAX_COUNTRY_ITEMS; empty for a country without a row."""
    country = CountryList(
        0,
        np.zeros(MAX_COUNTRY_ITEMS, np.uint64),
        np.zeros((MAX_COUNTRY_ITEMS, 2, 2), np.int64),
        np.zeros((MAX_COUNTRY_ITEMS, 2), np.int32),
    )
    if value is None:
        return country
    version, n = np.frombuffer(value, np.uint32, 2).tolist()
    if version != VERSION:
        raise ValueError(f"country list has version {version}; this program reads version {VERSION}")
    country.item[:n] = np.frombuffer(value, np.uint64, n, 8)
    country.pop[:n] = np.frombuffer(value, np.int64, 4 * n, 8 + 8 * n).reshape(n, 2, 2)
    country.epoch[:n] = np.frombuffer(value, np.int32, 2 * n, 8 + 40 * n).reshape(n, 2)
    return country._replace(n=n)


def country_scope(country: CountryList, half_lives_ms: tuple[int, int]) -> ScopeList:
    """Return the country list as a scope list, its counters read as forward scores."""
    scores = [
        np.array(
            [
                forward_score(country.epoch[i, h], country.pop[i, h, 0], country.pop[i, h, 1], half_life)
                for i in range(country.n)
            ],
            np.float32,
        )
        for h, half_life in enumerate(half_lives_ms)
    ]
    return ScopeList(country.item[: country.n].copy(), scores[0], scores[1])


def encode_feed(item_ids: list[str]) -> bytes:
    """Return a feed chunk: ids of items that are new or whose product changed, in order."""
    return orjson.dumps(item_ids)


def decode_feed(value: bytes | None) -> list[str]:
    """Return the ids of a feed chunk, none for one that is not there."""
    return [] if value is None else list(orjson.loads(value))
