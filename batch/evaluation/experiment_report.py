"""Results of an experiment: how many of each arm's visitors reached its goal.

A visitor counts in the arm first shown, from that moment on, whether or not the list had to do with what came later
(intention to treat), so that an arm cannot win by being seen less.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from flows.log.contract import Log, RawBatch, topic_of
from flows.log.read_to import read_to
from schemas.avro_decoder import Limits, decode
from schemas.ids import hash_visitor
from schemas.records import Malformed, read_value
from schemas.registry import SchemaRegistry, UnknownSchema
from schemas.resolve import UnreadableSchema
from serving.rules.experiments import Experiment

CONFIDENCE = 0.95
SUSPECT = 0.001
"""Below it the visitors are not split as the weights say: something is wrong with the experiment itself."""


@dataclass
class Seen:
    """The log's data of one experiment."""

    first: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By visitor (id hash): the arm, and when it was first shown."""
    lists: dict[str, set[str]] = field(default_factory=dict)
    """By arm: requests answered."""
    mixed: set[int] = field(default_factory=set)
    """Visitors who were shown more than one arm; they count nowhere."""
    user: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    ts_ms: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Events that were hoped for: who and when."""
    n_unreadable: int = 0
    """Impressions that are no record of their schema."""


def read_log(
    log: Log, registry: SchemaRegistry, experiment: str, kind: int, now_ms: int, limits: Limits, patience_s: float,
    progress: Callable[[int], None],
) -> Seen:  # fmt: skip
    """Read exposures of an experiment and the events of one kind, to the end that the log has now.

    An event id counts once. Raises LogUnavailable when nothing more comes for `patience_s`, PositionLost.
    """
    seen, parts = Seen(), []
    for raw in read_to(log, log.start(), log.end(), patience_s):
        _exposures(raw, registry, experiment, seen)
        rows = decode(raw, registry, now_ms, limits).interactions
        parts.append(rows[rows["kind"] == kind][["event_id", "user", "ts_ms"]].copy())
        progress(len(raw))
    if parts:
        events = np.concatenate(parts)
        events = events[np.unique(events["event_id"], return_index=True)[1]]
        seen.user, seen.ts_ms = events["user"], events["ts_ms"]
    return seen


def _exposures(raw: RawBatch, registry: SchemaRegistry, experiment: str, seen: Seen) -> None:
    streams = [n for n, stream in enumerate(raw.streams) if topic_of(stream) == "impressions"]
    for i in np.flatnonzero(np.isin(raw.stream, streams)).tolist():
        record = _impression(raw.value(i), registry)
        if record is None:
            seen.n_unreadable += 1
            continue
        arm = dict(one.split(":", 1) for one in (record["arm"] or "").split(",") if ":" in one).get(experiment)
        visitor = hash_visitor(record["user"], record["session"])
        if arm is None or not visitor:
            continue
        seen.lists.setdefault(arm, set()).add(record["request_id"])
        known, at = seen.first.get(visitor, (arm, record["ts_ms"]))
        seen.first[visitor] = known, min(at, record["ts_ms"])
        if known != arm:
            seen.mixed.add(visitor)


def _impression(value: bytes, registry: SchemaRegistry) -> dict[str, Any] | None:
    """Return an impression as our schema has it, None where it is none. Raises RegistryUnavailable."""
    try:
        record: dict[str, Any] = read_value(value, "impressions", registry)
        return record
    except (Malformed, UnknownSchema, UnreadableSchema):
        return None


def report(experiment: Experiment, seen: Seen, within_ms: int) -> dict[str, Any]:
    """Return visitors, conversions and their uncertainty by arm, each compared with the first arm.

    Intervals are Wilson's, those of differences Newcombe's (1998, method 10), p-values of the chi-squared test.
    """
    visitors = np.array(sorted(set(seen.first) - seen.mixed), np.uint64)
    shown_ms = np.array([seen.first[one][1] for one in visitors.tolist()], np.int64)
    arm_of = [seen.first[one][0] for one in visitors.tolist()]
    converted = np.zeros(len(visitors), np.bool_)
    if len(visitors):
        at = np.minimum(np.searchsorted(visitors, seen.user), len(visitors) - 1)
        since = seen.ts_ms - shown_ms[at]
        converted[at[(visitors[at] == seen.user) & (since >= 0) & (since <= within_ms)]] = True
    n_shown, n_converted = Counter(arm_of), Counter(arm for arm, did in zip(arm_of, converted, strict=True) if did)
    control = experiment.arms[0].name
    arms = [
        compared(arm.name, len(seen.lists.get(arm.name, ())), n_shown[arm.name], n_converted[arm.name],
             n_shown[control], n_converted[control], arm.name == control)
        for arm in experiment.arms
    ]  # fmt: skip
    weights = np.array([arm.weight for arm in experiment.arms])
    shown = np.array([n_shown[arm.name] for arm in experiment.arms])
    split_p = float(stats.chisquare(shown, shown.sum() * weights / weights.sum()).pvalue) if shown.sum() else 1.0
    return {
        "experiment": experiment.id, "arms": arms, "split_p_value": split_p, "split_is_suspect": split_p < SUSPECT,
        "visitors_in_several_arms": len(seen.mixed), "unreadable_impressions": seen.n_unreadable,
        "confidence": CONFIDENCE,
    }  # fmt: skip


def compared(name: str, lists: int, n: int, k: int, n_0: int, k_0: int, is_control: bool) -> dict[str, Any]:
    """Return the figures of an arm with `k` of `n` visitors converted, and of `k_0` of `n_0` in the first arm."""
    rate, (low, high) = k / n if n else 0.0, wilson(k, n)
    found: dict[str, Any] = {
        "arm": name, "lists": lists, "visitors": n, "converted": k, "rate": rate, "rate_low": low, "rate_high": high,
    }  # fmt: skip
    if is_control or not n or not n_0:
        return found
    rate_0, (low_0, high_0) = k_0 / n_0, wilson(k_0, n_0)
    difference = rate - rate_0
    found |= {
        "difference": difference,
        "difference_low": difference - math.hypot(rate - low, high_0 - rate_0),
        "difference_high": difference + math.hypot(high - rate, rate_0 - low_0),
        "lift": difference / rate_0 if rate_0 else None,
        "p_value": 1.0,
    }
    if 0 < k + k_0 < n + n_0:
        test = stats.chi2_contingency([[k, n - k], [k_0, n_0 - k_0]], correction=False)
        found["p_value"] = float(test.pvalue)
    return found


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of `k` in `n`, (0, 1) of nothing."""
    if not n:
        return 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
