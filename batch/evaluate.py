"""Offline evaluation: training events through the real lane, predictions through the real scorer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from batch.baselines import NAMES, Baselines
from batch.embedding import embed
from batch.metrics import bootstrap, over_all, per_prediction
from batch.mixture_table import mixture_table
from batch.nightly import fit_night
from batch.ranker import ranked_items
from batch.shop import Pairs, Shop, View, columns_of, sessions_by_end
from flows.lane import LaneSettings
from schemas.events import Columns
from serving.blend import NO_EMBEDDING, REPEAT_MODES, Scorer
from serving.diversity import mmr, similarities
from serving.mixture import DEFAULT, MixtureParams
from state.slot_map import ABSENT

K = 20
COLD_EVENTS = 10
BATCH = 16

Ids = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Options:
    """How to evaluate."""

    repeat: str = "allow"
    mode: str = "frozen"
    fit: bool = True
    ranker: str = "auto"  # auto, off
    diversity: float = 0.0
    embedding: bool = True
    params: MixtureParams = DEFAULT
    settings: LaneSettings = field(default_factory=LaneSettings)
    baselines: Sequence[str] = NAMES


def evaluate(train: Columns, pairs: Pairs, options: Options) -> dict[str, Any]:
    """Return metrics, intervals and timings; keys like `HR@20`, `new_only.HR@20`, `baselines.popular.HR@20`."""
    started = time.perf_counter()
    n_items = len(np.unique(train["item"]))
    shop = Shop(len(np.unique(train["user"])) + len(pairs.target), n_items, options.settings)
    shop.learn(train)
    learned = time.perf_counter()
    view = shop.view()
    embedding = embed(view.rows, view.slots) if options.embedding else NO_EMBEDDING
    night = fit_night(train, options.settings, options.ranker != "off") if options.fit else None
    params = night.fit.params if night and night.fit.kept else options.params
    ranker = (
        night.ranker
        if night and options.repeat != "demote" and options.mode == "frozen" and options.diversity == 0
        else None
    )
    Scorer().warm_up()
    ready = time.perf_counter()
    if ranker is not None:
        ranked = _by_trees(view, embedding, pairs, params, ranker, options.repeat == "exclude")
    elif options.mode == "prequential":
        ranked = _prequential(shop, embedding, pairs, params, options)
    else:
        ranked = _by_scorer(view, embedding, pairs, params, options)
    done = time.perf_counter()
    popularity = dict(zip(*(a.tolist() for a in np.unique(train["item"], return_counts=True)), strict=True))
    found: dict[str, Any] = _figures(ranked, pairs, popularity, n_items)
    found |= {
        f"intra_list_diversity@{K}": _inside_lists(ranked, view, embedding),
        "n": len(pairs.target),
        "train_events": len(train),
        "items": n_items,
        "train_events_per_s": round(len(train) / max(learned - started, 1e-9)),
        "ms_per_prediction": (done - ready) * 1000 / max(len(pairs.target), 1),
        "seconds": {"learn": learned - started, "fit": ready - learned, "predict": done - ready},
        "fit": None if night is None else {
            "predictions": night.fit.predictions, "kept": night.fit.kept, "before": night.fit.before,
            "after": night.fit.after, "ranker": ranker is not None, "ranker_gain": night.ranker_gain,
        },
        "mode": options.mode,
        "repeat": options.repeat,
    }  # fmt: skip
    found["baselines"] = _baselines(train, pairs, options, popularity, n_items)
    return found


def _by_scorer(
    view: View, embedding: npt.NDArray[np.float32], pairs: Pairs, params: MixtureParams, options: Options
) -> Ids:
    scorer, mode = Scorer(params), REPEAT_MODES[options.repeat]
    ranked = np.zeros((len(pairs.target), K), np.uint64)
    for first in range(0, len(pairs.target), BATCH):
        sessions = list(pairs.history[first : first + BATCH])
        scored = scorer.score(
            sessions, view.rows, view.slots, view.totals, view.now_ms, [mode] * len(sessions), embedding
        )
        for b in range(len(sessions)):
            order = _order(scored.item[b], scored.probability[b], int(scored.n[b]), view, embedding, options)
            ranked[first + b, : len(order)] = scored.item[b, order]
    return ranked


def _order(
    items: Ids, probability: npt.NDArray[np.float64], n: int, view: View, embedding: npt.NDArray[np.float32],
    options: Options,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Return which of the n candidates are shown, in order."""
    if options.diversity <= 0 or n == 0:
        return np.arange(min(n, K))
    vectors = embedding[view.slots.find(items[:n])]
    alike = similarities(vectors, [""] * n)
    return np.array(mmr(probability[:n] / probability[0], alike, options.diversity, K))


def _inside_lists(ranked: Ids, view: View, embedding: npt.NDArray[np.float32]) -> float | None:
    """Return the mean of 1 − cosine over all pairs of a list, averaged over lists (Ziegler et al., WWW 2005)."""
    if not embedding.size:
        return None
    slots = view.slots.find(ranked.ravel()).reshape(ranked.shape)
    there = (ranked != 0) & (slots != ABSENT)
    vectors = embedding[slots] * there[:, :, None]
    n = there.sum(axis=1)
    whole = (vectors.sum(axis=1) ** 2).sum(axis=1)
    own = (vectors**2).sum(axis=(1, 2))
    several = n > 1
    return float((1 - (whole - own)[several] / (n * (n - 1))[several]).mean()) if several.any() else None


def _by_trees(
    view: View, embedding: npt.NDArray[np.float32], pairs: Pairs, params: MixtureParams, ranker: lgb.Booster,
    drop_seen: bool,
) -> Ids:  # fmt: skip
    parts = []
    for first in range(0, len(pairs.target), 2_000):
        part = Pairs(pairs.history[first : first + 2_000], pairs.target[first : first + 2_000])
        parts.append(ranked_items(ranker, params, mixture_table(view, embedding, part), K, drop_seen))
    return np.concatenate(parts)


def _prequential(
    shop: Shop, embedding: npt.NDArray[np.float32], pairs: Pairs, params: MixtureParams, options: Options
) -> Ids:
    """Predict, then learn the event at once. Pairs of one session follow each other and grow by their target."""
    ranked = np.zeros((len(pairs.target), K), np.uint64)
    view, session, before = shop.view(), 0, None
    one = Options(**{**options.__dict__, "mode": "frozen"})
    now, event_id = view.now_ms, 1 << 62
    for i, (history, target) in enumerate(zip(pairs.history, pairs.target, strict=True)):
        fresh = before is None or len(history) != len(before) + 1 or not np.array_equal(history[:-1], before)
        if fresh:
            session += 1
            now = _learn(shop, session, history, now, event_id)
            event_id += len(history)
        ranked[i] = _by_scorer(shop.view(), embedding, Pairs([history], pairs.target[i : i + 1]), params, one)[0]
        now = _learn(shop, session, np.array([target], np.uint64), now, event_id)
        event_id += 1
        before = history
    return ranked


def _learn(shop: Shop, session: int, items: Ids, now_ms: int, event_id: int) -> int:
    """Fold items of a test session, a second apart; return the new time."""
    times = now_ms + 1000 * np.arange(1, len(items) + 1)
    user = np.full(len(items), (1 << 63) + session, np.uint64)
    shop.learn(columns_of(user, items, times, first_id=event_id))
    return int(times[-1])


def _figures(ranked: Ids, pairs: Pairs, popularity: dict[int, float], n_items: int) -> dict[str, Any]:
    targets = [np.array([t], np.uint64) for t in pairs.target]
    metrics = per_prediction(ranked, targets, K)
    new = np.array([t not in h for h, t in zip(pairs.history, pairs.target, strict=True)])
    short = np.array([len(h) < COLD_EVENTS for h in pairs.history])
    found: dict[str, Any] = {name: float(values.mean()) for name, values in metrics.items()}
    found["interval"] = {name: bootstrap(metrics[name]) for name in (f"HR@{K}", f"MRR@{K}")}
    for group, chosen in (("new_only", new), ("cold_users", short)):
        found |= {f"{group}.{name}": float(values[chosen].mean()) if chosen.any() else None
                  for name, values in metrics.items()}  # fmt: skip
        found[f"{group}.n"] = int(chosen.sum())
    return found | over_all(ranked, K, popularity, n_items)


def _baselines(
    train: Columns, pairs: Pairs, options: Options, popularity: dict[int, float], n_items: int
) -> dict[str, Any]:
    if not options.baselines:
        return {}
    session = sessions_by_end(train["user"], train["ts_ms"], options.settings.session_gap_ms)
    order = np.lexsort((train["ts_ms"], session))
    bounds = np.flatnonzero(np.diff(session[order]))
    models = Baselines(np.split(train["item"][order], bounds + 1))
    found = {}
    for name in options.baselines:
        ranked = np.zeros((len(pairs.target), K), np.uint64)
        for i, history in enumerate(pairs.history):
            hidden = set(history.tolist()) if options.repeat == "exclude" else set()
            best = [item for item in models.rank(name, history, K + len(hidden)) if item not in hidden][:K]
            ranked[i, : len(best)] = best
        figures = _figures(ranked, pairs, popularity, n_items)
        found[name] = {key: value for key, value in figures.items() if key != "interval"}
    return found
