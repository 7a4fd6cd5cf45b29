"""Offline evaluation: training events through the real lane, predictions through the real scorer."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import numpy.typing as npt

from batch.evaluation.baselines import NAMES, Baselines
from batch.evaluation.groups import Categories, by_category, by_group, groups_of, miscalibration
from batch.evaluation.reliability import reliability
from batch.metrics import SEED, bootstrap, difference, hits_of, over_all, per_prediction
from batch.training.embedding import embed
from batch.training.nightly import fit_night
from batch.training.simulated_shop import Pairs, SimulatedState, View, columns_of, sessions_by_end
from flows.fold.purchases import add_purchases
from flows.fold.settings import LaneSettings
from schemas.events import Columns
from serving.candidates.repurchase import habits
from serving.ranking.mmr_dpp import METHODS, calibrated, department, similarity
from serving.scoring.parameters import DEFAULT, MixtureParams
from serving.scoring.scorer import NO_EMBEDDING, REPEAT_MODES, Scorer
from serving.scoring.sessions import padded_sessions
from serving.scoring.tree_ensemble import NO_FOREST
from state.rows.purchase_rows import empty_purchases
from state.rows.slot_map import ABSENT

K = 20
INTERVALS = (f"HR@{K}", f"MRR@{K}", f"NDCG@{K}", f"recall@{K}")
BATCH = 16
FOREVER_MS = 1 << 60

Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Stage = Callable[[str], AbstractContextManager[Any]]
"""Entered for the time of a stage, given what it does."""


def no_stage(what: str) -> AbstractContextManager[None]:
    """Return a context that shows nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Options:
    """Options of an evaluation."""

    repeat: str = "allow"
    mode: str = "frozen"
    fit: bool = True
    ranker: str = "auto"  # auto, off
    diversity: float = 0.0
    diversity_method: str = "mmr"
    embedding: bool = True
    params: MixtureParams = DEFAULT
    settings: LaneSettings = field(default_factory=LaneSettings)
    baselines: Sequence[str] = NAMES


def evaluate(
    train: Columns, pairs: Pairs, options: Options, categories: Categories | None = None, progress: Stage = no_stage
) -> dict[str, Any]:  # fmt: skip
    """Return metrics, intervals and timings; keys like `HR@20`, `new_only.HR@20`, `baselines.popular.HR@20`.

    With `categories` also `by_category` and the miscalibration of the lists. `progress` is entered for each stage.
    """
    started = time.perf_counter()
    n_items = len(np.unique(train["item"]))
    shop = SimulatedState(len(np.unique(train["user"])) + len(pairs.target), n_items, options.settings)
    with progress("folding the events"):
        shop.learn(train)
    learned = time.perf_counter()
    view = shop.view()
    with progress("embedding the rows and fitting the scoring"):
        embedding = embed(view.rows, view.slots) if options.embedding else NO_EMBEDDING
        night = fit_night(train, options.settings, options.ranker != "off", options.params) if options.fit else None
    params, forest = (night.fit.params, night.forest) if night else (options.params, NO_FOREST)
    scorer = Scorer(params, forest=forest, max_age_ms=0 if options.mode == "prequential" else FOREVER_MS)
    scorer.warm_up()
    ready = time.perf_counter()
    with progress("predicting"):
        if options.mode == "prequential":
            ranked, probability = _prequential(scorer, shop, embedding, pairs, options, categories)
        else:
            ranked, probability = _by_scorer(scorer, view, embedding, pairs, options, categories)
    bought_ms = pairs.bought_ms if options.repeat == "allow" else None
    if bought_ms is not None:
        ranked = _usual_first(ranked, view, pairs.history, bought_ms)
    done = time.perf_counter()
    judge = _Judge(train, pairs, categories, n_items)
    found: dict[str, Any] = judge.figures(ranked)
    if bought_ms is None:  # habits do not say how likely
        found["reliability"], found["calibration_error"] = reliability(probability, hits_of(ranked, pairs.targets))
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
            "after": night.fit.after, "ranker": len(scorer.forest.value) > 0,
            "ranker_gain": night.gain and night.gain._asdict(),
        },
        "mode": options.mode,
        "repeat": options.repeat,
        "strategy": "session" if bought_ms is None else "hybrid",
        "run": {
            "version": installed("headrace"),
            "first_ms": int(train["ts_ms"].min()), "last_ms": int(train["ts_ms"].max()),
            "fit": options.fit, "ranker": options.ranker, "diversity": options.diversity,
            "diversity_method": options.diversity_method, "bootstrap_seed": SEED,
        },
    }  # fmt: skip
    found["baselines"] = _baselines(train, pairs, options, judge, ranked, progress)
    return found


class _Judge:
    """Measures lists for the predictions of one evaluation."""

    def __init__(self, train: Columns, pairs: Pairs, categories: Categories | None, n_items: int) -> None:
        self._pairs, self._categories, self._n_items = pairs, categories, n_items
        self._groups = groups_of(pairs, train)
        counts = (a.tolist() for a in np.unique(train["item"], return_counts=True))
        self._popularity: dict[int, float] = dict(zip(*counts, strict=True))

    def figures(self, ranked: Ids) -> dict[str, Any]:
        """Return every figure of the lists (P, K) by name."""
        pairs = self._pairs
        metrics = per_prediction(ranked, pairs.targets, K)
        found: dict[str, Any] = {name: float(values.mean()) for name, values in metrics.items()}
        found["interval"] = bootstrap({name: metrics[name] for name in INTERVALS})
        found |= by_group(ranked, self._groups, K) | over_all(ranked, K, self._popularity, self._n_items)
        if self._categories:
            found[f"miscalibration@{K}"] = miscalibration(ranked, pairs.history, self._categories)
            found["by_category"] = by_category(ranked, pairs, self._categories, K)
        return found


def _by_scorer(
    scorer: Scorer, view: View, embedding: npt.NDArray[np.float32], pairs: Pairs, options: Options,
    categories: Categories | None,
) -> tuple[Ids, Floats]:  # fmt: skip
    mode = REPEAT_MODES[options.repeat]
    ranked, probability = np.zeros((len(pairs.target), K), np.uint64), np.zeros((len(pairs.target), K))
    for first in range(0, len(pairs.target), BATCH):
        sessions = list(pairs.history[first : first + BATCH])
        scored = scorer.score(
            padded_sessions(sessions), view.rows, view.slots, view.totals, view.now_ms, mode, embedding
        )
        for b in range(len(sessions)):
            order = _order(
                scored.item[b],
                scored.probability[b],
                int(scored.n[b]),
                view,
                embedding,
                options,
                sessions[b],
                categories,
            )
            ranked[first + b, : len(order)] = scored.item[b, order]
            probability[first + b, : len(order)] = scored.probability[b, order]
    return ranked, probability


def _usual_first(ranked: Ids, view: View, histories: Sequence[Ids], bought_ms: Sequence[npt.NDArray[np.int64]]) -> Ids:
    """Put what customers with habits buy again before the rest, as the server does; the rows are the lane's."""
    found, rows, totals = np.zeros_like(ranked), empty_purchases(len(histories)), np.zeros(2, np.int64)
    for i, (history, times) in enumerate(zip(histories, bought_ms, strict=True)):
        add_purchases(rows, np.full(len(history), i), history, times, totals, np.zeros(len(history), np.uint64))
    for i in range(len(histories)):
        slots = view.slots.find(rows.item[i, : rows.n[i]])
        own, _ = habits(rows, i, totals, np.where(slots == ABSENT, 0, view.rows["count"][slots]).astype(np.float64))
        merged = list(dict.fromkeys([*own.tolist(), *ranked[i][ranked[i] != 0].tolist()]))[: ranked.shape[1]]
        found[i, : len(merged)] = merged
    return found


def _order(
    items: Ids, probability: npt.NDArray[np.float64], n: int, view: View, embedding: npt.NDArray[np.float32],
    options: Options, history: Ids, categories: Categories | None,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Return which of the n candidates are shown, in order."""
    if options.diversity <= 0 or n == 0:
        return np.arange(min(n, K))
    relevance = probability[:n] / probability[0]
    if options.diversity_method == "calibrated":
        names, past = (
            [department((categories or {}).get(item, "")) for item in some.tolist()] for some in (items[:n], history)
        )
        return np.array(calibrated(relevance, names, past, options.diversity, K))
    alike = similarity(embedding[view.slots.find(items[:n])], np.zeros(n, np.int64))
    return METHODS[options.diversity_method](relevance, alike, options.diversity, K)


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


def _prequential(
    scorer: Scorer, shop: SimulatedState, embedding: npt.NDArray[np.float32], pairs: Pairs, options: Options,
    categories: Categories | None,
) -> tuple[Ids, Floats]:  # fmt: skip
    """Predict, then fold the event at once. Pairs of one session follow each other and grow by their target."""
    ranked, probability = np.zeros((len(pairs.target), K), np.uint64), np.zeros((len(pairs.target), K))
    view, session, before = shop.view(), 0, None
    one = Options(**{**options.__dict__, "mode": "frozen"})
    now, event_id = view.now_ms, 1 << 62
    for i, (history, target) in enumerate(zip(pairs.history, pairs.target, strict=True)):
        fresh = before is None or len(history) != len(before) + 1 or not np.array_equal(history[:-1], before)
        if fresh:
            session += 1
            now = _learn(shop, session, history, now, event_id)
            event_id += len(history)
        asked = Pairs([history], pairs.target[i : i + 1])
        items, p = _by_scorer(scorer, shop.view(), embedding, asked, one, categories)
        ranked[i], probability[i] = items[0], p[0]
        now = _learn(shop, session, np.array([target], np.uint64), now, event_id)
        event_id += 1
        before = history
    return ranked, probability


def _learn(shop: SimulatedState, session: int, items: Ids, now_ms: int, event_id: int) -> int:
    """Fold items of a test session, a second apart; return the new time."""
    times = now_ms + 1000 * np.arange(1, len(items) + 1)
    user = np.full(len(items), (1 << 63) + session, np.uint64)
    shop.learn(columns_of(user, items, times, first_id=event_id))
    return int(times[-1])


def _baselines(
    train: Columns, pairs: Pairs, options: Options, judge: _Judge, own: Ids, progress: Stage
) -> dict[str, Any]:  # fmt: skip
    if not options.baselines:
        return {}
    session = sessions_by_end(train["user"], train["ts_ms"], options.settings.session_gap_ms)
    order = np.lexsort((train["ts_ms"], session))
    bounds = np.flatnonzero(np.diff(session[order]))
    models = Baselines(np.split(train["item"][order], bounds + 1))
    found = {}
    for name in options.baselines:
        with progress(f"baseline {name}"):
            ranked = models.rank_all(name, pairs.history, K, options.repeat == "exclude")
            found[name] = judge.figures(ranked) | {"difference": difference(own, ranked, pairs.targets)}
    return found
