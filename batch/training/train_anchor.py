"""The nightly training: from the log to a new anchor in the anchor store, measured against the live one."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import structlog

from batch.settings import TrainingSettings
from batch.training.als import fit, hold_out, recall, whiten
from batch.training.embedding import embed
from batch.training.interactions import Interactions, read_interactions
from batch.training.log_events import Reader
from batch.training.nightly import Night, fit_night
from batch.training.simulated_shop import SimulatedState, columns_of
from flows.fold.settings import LaneSettings
from flows.log.contract import Log
from flows.log.open_registry import open_registry
from flows.settings import lane_settings, limits_of
from serving.retrieval.build import build_index
from serving.scoring.tree_ensemble import written_down
from state.anchor import Anchor, AnchorDamaged, load_anchor, load_metrics, read_manifest, save_anchor
from state.anchors.contract import AnchorStore, AnchorsUnavailable
from state.anchors.open_anchors import open_anchors

LEAST_ITEMS = 2
LEAST_JUDGED = 50
"""Users whose held-out events decide between two anchors."""
FIT_EVENTS = 2_000_000
"""Newest events that the scoring is fitted on."""
log = structlog.get_logger()


class Progress(NamedTuple):
    """Callbacks for the progress of a training, which calls both in its own thread, a few times a second at most."""

    stage: Callable[[str], AbstractContextManager[Any]]
    """Entered for the time of a stage, given what it does."""
    reading: Callable[[int], AbstractContextManager[Callable[[int], None]]]
    """Entered for the time of reading so many messages; called with the number of those that were read since."""


def _no_stage(what: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def _no_reading(total: int) -> AbstractContextManager[Callable[[int], None]]:
    return contextlib.nullcontext(lambda n: None)


SILENT = Progress(_no_stage, _no_reading)


class TooLittleData(Exception):
    """There is nothing to train on."""


class Refused(Exception):
    """The new anchor is worse than the current one."""


def train_anchor(
    settings: TrainingSettings, log: Log, now_ms: int, current: str | None = None, force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Train, write a new anchor folder and return its summary.

    Raises TooLittleData, AnchorsUnavailable; and Refused when the `current` anchor finds more of the held-out
    events than the new model does, unless `force`.
    """
    anchors = open_anchors(settings)
    anchors.prepare()
    there = anchors.versions()
    weights = lane_settings(settings).fold_params().weights
    started = time.perf_counter()
    data = _read(settings, log, weights, now_ms, progress)
    if len(data.item_hash) < LEAST_ITEMS or not len(data.user_hash):
        raise TooLittleData(f"the log holds {len(data.weight)} interactions with items; there is nothing to train on")
    read_at = time.perf_counter()
    factors = min(settings.factors, len(data.item_hash))
    how = (factors, settings.als_regularization, settings.als_alpha, settings.als_iterations, settings.als_threads)
    with progress.stage("measuring on the newest tenth of the events"):
        metrics = _measure(settings, data, factors, _load_current(anchors, current))
    _gate(metrics, settings.anchor_tolerance, current, force)
    measured_at = time.perf_counter()
    with progress.stage("training on all events"):
        whitened, gram = whiten(fit(data.matrix(), *how), settings.als_regularization)
    trained_at = time.perf_counter()
    with progress.stage("embedding the rows and fitting the scoring"):
        embedding, night = _night(data, lane_settings(settings))
    version = "a" + datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    if version in there:
        version += f"-{len(there)}"
    anchor = Anchor(
        version, data.item_ids, data.item_hash, whitened, gram, settings.als_alpha, weights, embedding,
        night.fit.params._asdict() if night.fit.kept else None,
        written_down(night.forest),
    )  # fmt: skip
    metrics |= night.figures()
    manifest: dict[str, Any] = {
        "created_ms": now_ms,
        "parent": there[-1] if there else None,
        "code": installed("headrace"),
        "settings": {"factors": factors, "regularization": how[1], "iterations": how[3]},
        "data": {
            "positions": data.positions,
            "events": len(data.weight),
            "users": len(data.user_hash),
            "items": len(data.item_hash),
            "first_ms": int(data.ts_ms.min()),
            "last_ms": int(data.ts_ms.max()),
        },
    }
    index, index_figures = build_index(whitened)
    metrics |= index_figures
    save_anchor(anchors.folder, anchor, lambda path: faiss.write_index(index, str(path)), metrics, manifest)
    with progress.stage(f"publishing in {anchors.name}"):
        anchors.publish(version)
    anchors.keep(version, *([current] if current else []))
    seconds = {
        "read": read_at - started, "measure": measured_at - read_at, "train": trained_at - measured_at,
        "fit": time.perf_counter() - trained_at,
    }  # fmt: skip
    return {"version": version, **manifest["data"], "metrics": metrics, "seconds": seconds}


class _Current(NamedTuple):
    """The anchor that is live when another one is trained."""

    anchor: Anchor
    trained_to_ms: int
    """Time of the newest event it was trained on."""
    recall: float | None
    """Its recall@20, measured when it was made."""


def _measure(settings: TrainingSettings, data: Interactions, factors: int, current: _Current | None) -> dict[str, Any]:
    """Return how much of the held-out events a model of these settings finds, and the current anchor.

    Where enough users have acted since the current anchor was trained, those events are held
    out, so that both models know the same past. Otherwise the newest tenth is, which the current
    anchor has seen: what was measured when it was made stands for it.
    """
    split = hold_out(data)
    since = hold_out(data, current.trained_to_ms) if current else None
    if since is not None and len(since.users) >= LEAST_JUDGED:
        split = since
    whitened, _ = whiten(
        fit(split.train, factors, settings.als_regularization, settings.als_alpha, settings.als_iterations,
            settings.als_threads), settings.als_regularization,
    )  # fmt: skip
    found: dict[str, Any] = {"users": len(split.users), **recall(split, whitened, settings.als_alpha)}
    found["current.recall@20"] = current.recall if current else None
    if current is not None and split is since:
        anchor = current.anchor
        row = anchor.row_of(data.item_hash)
        known = np.where(row[:, None] >= 0, anchor.whitened[row], 0).astype(np.float32)
        found["current.recall@20"] = recall(split, known, anchor.alpha)["recall@20"]
    return found


def _load_current(anchors: AnchorStore, version: str | None) -> _Current | None:
    """Return the current anchor, None where there is none that can be loaded."""
    if version is None:
        return None
    try:
        path = anchors.fetch(version)
        return _Current(
            load_anchor(path), int(read_manifest(path)["data"]["last_ms"]), load_metrics(path)["recall@20"]
        )  # fmt: skip
    except (AnchorDamaged, AnchorsUnavailable, OSError) as error:
        log.warning("the current anchor cannot be loaded; the new one is not compared with it", error=str(error))
        return None


def _gate(metrics: dict[str, Any], tolerance: float, current: str | None, force: bool) -> None:
    new, old = metrics["recall@20"], metrics["current.recall@20"]
    if new is None or old is None or new >= old * (1 - tolerance):
        return
    comparison = f"recall@20 on the held-out events is {new:.4f}, that of the current anchor {current} {old:.4f}"
    if not force:
        raise Refused(f"not published: {comparison}; --force publishes it all the same")
    log.warning("published by --force", reason=comparison)


def _night(data: Interactions, settings: LaneSettings) -> tuple[npt.NDArray[np.float16], Night]:
    """Return (an embedding for every item of `data`, the fit) from the newest FIT_EVENTS events."""
    newest = np.argsort(data.ts_ms, kind="stable")[-FIT_EVENTS:]
    events = columns_of(data.user_hash[data.user[newest]], data.item_hash[data.item[newest]], data.ts_ms[newest])
    shop = SimulatedState(len(data.user_hash), len(data.item_hash), settings)
    shop.learn(events)
    view = shop.view()
    by_slot = embed(view.rows, view.slots)
    slots = view.slots.find(data.item_hash)
    embedding = np.where(slots[:, None] >= 0, by_slot[slots], 0).astype(np.float16)
    return embedding, fit_night(events, settings)


def _read(
    settings: TrainingSettings, log: Log, weights: npt.NDArray[np.float64], now_ms: int, progress: Progress
) -> Interactions:
    start, end = log.start(), log.end()
    total = sum(end[stream] - start.get(stream, 0) for stream in end)
    with progress.reading(total) as advance:
        reader = Reader(open_registry(settings), now_ms, limits_of(settings), settings.connect_timeout_s, advance)
        return read_interactions(log, reader, weights)
