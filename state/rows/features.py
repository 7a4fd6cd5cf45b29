"""The online feature store: every feature by name, with its type, unit, freshness and the row it is read from.

Features are read from the rows the lanes keep, so they are as fresh as the last
committed batch and cost nothing to keep.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from state.rows.decay import value_at
from state.rows.item_rows import ItemRows, decode_items, empty_items
from state.rows.user_rows import KIND_MASK, UserRows, decode_users, empty_users

FRESHNESS = "last committed batch"
PRICE_UNIT = 1000.0


@dataclass(frozen=True)
class Reading:
    """Values besides the row that features are computed from."""

    now_ms: int
    half_lives_ms: tuple[int, int]


@dataclass(frozen=True)
class Feature:
    """One feature; `read(row, reading)` returns its value, None where nothing is known."""

    name: str
    type: str
    unit: str
    row: Literal["user", "item"]
    meaning: str
    read: Callable[[Any, Reading], Any]
    freshness: str = FRESHNESS


def _ms(value: Any) -> int | None:
    return int(value) or None


def _price_mean(row: np.void, reading: Reading) -> float | None:
    n = int(row["price_n"])
    return math.exp(int(row["price_sum"]) / n / PRICE_UNIT) if n else None


def _price_spread(row: np.void, reading: Reading) -> float | None:
    n = int(row["price_n"])
    if not n:
        return None
    mean = int(row["price_sum"]) / n
    return math.sqrt(max(int(row["price_square"]) / n - mean * mean, 0.0)) / PRICE_UNIT


def _affinities(which: int) -> Callable[[np.void, Reading], dict[str, float]]:
    def read(row: np.void, reading: Reading) -> dict[str, float]:
        weights, ids = row["affinity"][which].astype(float), row["affinity_id"][which]
        total = weights.sum()
        order = np.argsort(-weights, kind="stable")
        return {f"{ids[k]:08x}": float(weights[k] / total) for k in order.tolist() if weights[k] > 0}

    return read


def _history(row: np.void, reading: Reading) -> list[str]:
    return [f"{item:016x}" for item in row["item"][: int(row["n"])].tolist()]


def _kinds(row: np.void, reading: Reading) -> list[int]:
    return [kind & KIND_MASK for kind in row["kind"][: int(row["n"])].tolist()]


def _popularity(which: int) -> Callable[[np.void, Reading], float]:
    def read(row: np.void, reading: Reading) -> float:
        newest, before = int(row["pop"][which, 0]), int(row["pop"][which, 1])
        return value_at(int(row["pop_epoch"][which]), newest, before, reading.half_lives_ms[which], reading.now_ms)

    return read


def _trend(row: np.void, reading: Reading) -> float:
    short, long = _popularity(0)(row, reading), _popularity(1)(row, reading)
    share = reading.half_lives_ms[0] / reading.half_lives_ms[1]
    return math.log((short + 5.0 * share) / (long * share + 5.0 * share))


FEATURES: tuple[Feature, ...] = (
    Feature("user.events", "int", "events", "user", "history events ever", lambda r, _: int(r["seen"])),
    Feature("user.last_ms", "int", "ms since 1970", "user", "newest event", lambda r, _: _ms(r["last_ms"])),
    Feature("user.first_ms", "int", "ms since 1970", "user", "oldest event", lambda r, _: _ms(r["first_ms"])),
    Feature("user.views", "int", "events", "user", "views and clicks", lambda r, _: int(r["counts"][0])),
    Feature("user.carts", "int", "events", "user", "items put into the cart", lambda r, _: int(r["counts"][1])),
    Feature("user.purchases", "int", "order lines", "user", "items bought", lambda r, _: int(r["counts"][2])),
    Feature("user.searches", "int", "events", "user", "searches", lambda r, _: int(r["counts"][3])),
    Feature("user.price_mean", "float", "currency", "user", "geometric mean of prices", _price_mean),
    Feature("user.price_spread", "float", "ln(currency)", "user", "deviation of ln(price)", _price_spread),
    Feature("user.categories", "map", "share", "user", "decayed weight by category hash", _affinities(0)),
    Feature("user.brands", "map", "share", "user", "decayed weight by brand hash", _affinities(1)),
    Feature("user.hours", "int[24]", "events", "user", "events by hour of day, UTC", lambda r, _: r["hours"].tolist()),
    Feature("user.days", "int[7]", "events", "user", "events by weekday from Monday", lambda r, _: r["days"].tolist()),
    Feature("user.history", "hash[]", "items", "user", "latest items, oldest first", _history),
    Feature("user.history_kinds", "int[]", "kind", "user", "event kinds of the history", _kinds),
    Feature("item.popularity_short", "float", "weight", "item", "decayed weight, short half-life", _popularity(0)),
    Feature("item.popularity_long", "float", "weight", "item", "decayed weight, long half-life", _popularity(1)),
    Feature("item.trend", "float", "ln(ratio)", "item", "short against long popularity, shrunk", _trend),
    Feature("item.weight", "float", "weight", "item", "undecayed weight", lambda r, _: int(r["count"]) / 100),
    Feature("item.sessions", "int", "sessions", "item", "sessions it occurred in", lambda r, _: int(r["support"])),
    Feature("item.views", "int", "events", "item", "views and clicks", lambda r, _: int(r["kinds"][0])),
    Feature("item.carts", "int", "events", "item", "times put into a cart", lambda r, _: int(r["kinds"][1])),
    Feature("item.purchases", "int", "order lines", "item", "times bought", lambda r, _: int(r["kinds"][2])),
    Feature("item.price", "float", "currency", "item", "catalogue or first seen price", lambda r, _: float(r["price"])),
    Feature("item.first_ms", "int", "ms since 1970", "item", "first event", lambda r, _: _ms(r["first_ms"])),
    Feature("item.neighbours", "int", "items", "item", "neighbours kept", lambda r, _: int(r["n"])),
)


def read_features(kind: Literal["user", "item"], value: bytes | None, reading: Reading) -> dict[str, Any] | None:
    """Return all features of a user or item from its encoded row; None when there is no row."""
    if value is None:
        return None
    slot = np.zeros(1, np.int64)
    rows: UserRows | ItemRows
    if kind == "user":
        rows = empty_users(1)
        decode_users([value], slot, rows)
    else:
        rows = empty_items(1)
        decode_items([value], slot, rows)
    return {feature.name: feature.read(rows[0], reading) for feature in FEATURES if feature.row == kind}
