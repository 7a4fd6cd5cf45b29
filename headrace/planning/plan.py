"""The arithmetic of a plan: cores, memory, disk and network of each part, and what gives out first.

Every process of the flow reads the whole log and folds the users of its lanes. With P processes an event costs each of
them read + fold / P, and at most busy / peak rate of a core:

    P = fold / (busy / rate − read)

so that reading alone bounds the rate at busy / read. Rows of a lane lie in one Redis process, so there are as many
lanes as processes of the flow, or as Redis processes, whichever are more. A lane has rows of the items that its users
saw: of n views drawn by Zipf's law, Σ 1 − (1 − pᵢ)ⁿ different ones are expected.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from headrace.planning.costs import Costs, Ingest, Prices, Training
from headrace.planning.load import Load

GIB = 2**30
DAY_S, MONTH_DAYS = 86_400, 30
TRAINING_LIMIT_S, TRAINING_CORES, MEASURED_CORES = 7200, 64, 2
BROKER_BYTES_S, BROKER_CORES, BROKER_GIB = 50e6, 2, 8
SERVER_GIB = 64
"""What one machine for the training, a broker and a server may have."""
REDIS_ROOM, APPEND_ONLY_FILE, ANCHORS_KEPT = 1.25, 3, 3
"""Memory and disk of Redis as multiples of its rows; anchors on disk."""
KEPT_PER_USER = 50
"""Events in a user's history, and interactions of a user that a training reads, at most."""
ITEM_SKEW = 1.05


@dataclass(frozen=True)
class Part:
    """One kind of process, or what is kept on disk; `why` is the sum behind its number."""

    name: str
    n: int
    cores: float
    memory_gib: float
    why: str
    disk_gib: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What an installation needs."""

    lanes: int
    partitions: int
    parts: list[Part]
    network_gib_per_day: float
    busy: dict[str, float]
    """How much of its bound each resource takes in the busiest minutes; above 1 it does not fit."""
    notes: list[str] = field(default_factory=list)

    @property
    def bottleneck(self) -> str:
        """What gives out first when the shop grows."""
        return max(self.busy, key=lambda name: self.busy[name])

    @property
    def fits(self) -> bool:
        """Whether no bound is passed that more processes do not move."""
        return max(self.busy.values()) <= 1

    def price(self, prices: Prices) -> float:
        """Return the price of a month."""
        cores, memory = sum(part.cores for part in self.parts), sum(part.memory_gib for part in self.parts)
        disk = sum(part.disk_gib for part in self.parts)
        return (
            cores * prices.core + memory * prices.gib_of_memory + disk * prices.gib_of_disk
            + self.network_gib_per_day * MONTH_DAYS * prices.gib_of_network
        )  # fmt: skip


def plan(load: Load, costs: Costs) -> Plan:
    """Return the plan of a load."""
    rate, ingest = load.peak_events_per_s, costs.ingest
    flows = _processes_of_the_flow(rate, load.busy, ingest.read_us / 1e6, ingest.fold_us / 1e6)
    redis, lanes = _redis(load, costs, flows)
    server, training, log = _server(load, costs), _training(load, costs.training), _log(load, ingest)
    flow = Part(
        "flow", flows, flows, (flows * costs.rows.flow + lanes * costs.rows.flow_lane) / GIB,
        f"{rate:,.0f} events/s × ({ingest.read_us:g} µs in each + {ingest.fold_us:g} µs shared)",
    )  # fmt: skip
    parts = [flow, redis, server, log, training]
    of_events = load.events_per_day * ingest.log_bytes * load.log_ratio * (load.log_copies + flows) / GIB
    of_answers = load.rps / 2 * DAY_S * costs.serving.answer_bytes / GIB
    busy = {
        "reading the log in every process of the flow": rate * ingest.read_us / 1e6 / load.busy,
        "one lane in one Redis process": rate / lanes * ingest.redis_us / 1e6 / load.busy,
        f"cores of the nightly training in two hours ({TRAINING_CORES})":
            _training_core_s(load, costs.training) / TRAINING_LIMIT_S / TRAINING_CORES,
        f"memory of one server ({SERVER_GIB} GiB)": server.memory_gib / server.n / SERVER_GIB,
    }  # fmt: skip
    return Plan(lanes, max(lanes, log.n), parts, of_events + of_answers, busy, _notes(load, lanes))


def _redis(load: Load, costs: Costs, flows: int) -> tuple[Part, int]:
    """Return the Redis processes, and the number of lanes; more lanes have more rows of items."""
    rows = costs.rows
    cores = (load.peak_events_per_s * costs.ingest.redis_us + load.rps * costs.serving.redis_us) / 1e6 / load.busy
    of_users = load.users * (rows.user + rows.vector + load.buyers * rows.purchases)
    shards = 1
    while True:
        lanes = max(flows, shards)
        seen = lanes * distinct_items(load.users * KEPT_PER_USER / lanes, load.items)
        state = of_users + load.items * rows.product + seen * rows.item + rows.lane * lanes
        gib = state * load.generations / GIB
        enough = max(math.ceil(gib / load.shard_gib), math.ceil(cores))
        if enough <= shards:
            break
        shards += max(1, (enough - shards) // 2)
    n, why = shards * load.copies, f"{gib:,.1f} GiB of rows, {cores:.1f} cores, × {load.copies} copies"
    memory, disk = gib * load.copies * REDIS_ROOM, gib * load.copies * APPEND_ONLY_FILE
    return Part("redis", n, n, memory, why, disk_gib=disk), lanes


def _server(load: Load, costs: Costs) -> Part:
    us = getattr(costs.serving, f"{load.way}_us")
    n = max(load.copies, math.ceil(load.rps * us / 1e6 / load.busy))
    gib = (costs.rows.server + load.items * costs.rows.server_item) / GIB
    return Part("server", n, n, n * gib, f"{load.rps:,.0f} requests/s × {us:g} µs; {gib:.1f} GiB each")


def _log(load: Load, costs: Ingest) -> Part:
    n = max(load.log_copies, math.ceil(load.peak_events_per_s * costs.log_bytes * load.log_copies / BROKER_BYTES_S))
    kept = load.events_per_day * load.retention_days * costs.log_bytes * load.log_ratio * load.log_copies / GIB
    why = f"{load.retention_days:g} days × {load.log_copies} copies"
    return Part("log", n, n * BROKER_CORES, n * BROKER_GIB, why, disk_gib=kept)


def distinct_items(views: float, items: float) -> float:
    """Return how many different items are expected among so many views, by Zipf's law with ITEM_SKEW.

    >>> round(distinct_items(1, 1000), 6), round(distinct_items(1e9, 1000))
    (1.0, 1000)
    """
    edges = np.unique(np.geomspace(1, items + 1, 4000).astype(np.int64)).astype(np.float64)
    first, count = edges[:-1], np.diff(edges)
    weight = (first + (count - 1) / 2) ** -ITEM_SKEW  # of the item in the middle of a bucket
    share = weight / (weight * count).sum()
    return float((count * -np.expm1(views * np.log1p(-np.minimum(share, 1 - 1e-12)))).sum())


def _interactions(load: Load) -> float:
    return min(load.users * KEPT_PER_USER, load.events_per_day * load.retention_days)


def _training_core_s(load: Load, costs: Training) -> float:
    return MEASURED_CORES * (costs.fixed_s + _interactions(load) * costs.us_per_interaction / 1e6)


def _training(load: Load, costs: Training) -> Part:
    """Return the nightly job, with as many cores as end it in two hours."""
    interactions, core_s = _interactions(load), _training_core_s(load, costs)
    cores = max(MEASURED_CORES, math.ceil(core_s / TRAINING_LIMIT_S))
    of_rows = load.users * costs.bytes_per_user + load.items * costs.bytes_per_item
    gib = (of_rows + interactions * costs.bytes_per_interaction) / GIB + costs.program_gib
    why = f"{core_s / cores / 60:,.0f} minutes a night, {interactions:,.0f} interactions"
    return Part("training", 1, cores, gib, why, disk_gib=ANCHORS_KEPT * load.items * costs.bytes_per_item / GIB)


def _processes_of_the_flow(rate: float, busy: float, read_s: float, fold_s: float) -> int:
    left_s = busy / rate - read_s
    if left_s <= 0:  # no number is enough: what a twentieth of the core leaves for folding
        left_s = busy / rate / 20
    return max(1, math.ceil(fold_s / left_s))


def _notes(load: Load, lanes: int) -> list[str]:
    found = []
    if lanes > 1:
        found.append(f"set HEADRACE_N_LANES={lanes} before the first start: more lanes later need a replay")
    if load.generations == 1:
        found.append("with one generation there is no room for a replay beside the live rows")
    return found
