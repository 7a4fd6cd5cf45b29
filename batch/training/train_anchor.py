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
from batch.training.als import fit, whiten
from batch.training.comparison import Refused, why_worse
from batch.training.embedding import embed
from batch.training.interactions import Interactions, read_interactions
from batch.training.log_events import Reader
from batch.training.measure import load_live, measure
from batch.training.nightly import Night, fit_night, newest_slice_ms
from batch.training.simulated_shop import SimulatedState, columns_of
from flows.fold.settings import LaneSettings
from flows.log.contract import Log
from flows.log.open_registry import open_registry
from flows.settings import lane_settings, limits_of
from serving.retrieval.build import build_index
from serving.scoring.tree_ensemble import written_down
from state.anchor import Anchor, save_anchor
from state.anchors.open_anchors import open_anchors

LEAST_ITEMS, LEAST_USERS = 2, 2
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
    """There is too little to train on."""


def train_anchor(
    settings: TrainingSettings, log: Log, now_ms: int, live: str | None = None, force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Train, write a new anchor folder and return its summary.

    Raises TooLittleData, AnchorsUnavailable; and Refused when the lists of the `live` anchor are better than those of
    the new one, unless `force`.
    """
    anchors = open_anchors(settings)
    anchors.prepare()
    there = anchors.versions()
    weights = lane_settings(settings).fold_params().weights
    started = time.perf_counter()
    data = _read(settings, log, weights, now_ms, progress)
    if len(data.item_hash) < LEAST_ITEMS or len(data.user_hash) < LEAST_USERS:
        raise TooLittleData(
            f"there is too little to train on: {len(data.weight)} interactions with items, visitors: "
            f"{len(data.user_hash)} of at least {LEAST_USERS}, items: {len(data.item_hash)} of at least {LEAST_ITEMS}"
        )
    read_at = time.perf_counter()
    factors = min(settings.factors, len(data.item_hash))
    how = (factors, settings.als_regularization, settings.als_alpha, settings.als_iterations, settings.als_threads)
    with progress.stage("embedding the rows and fitting the scoring"):
        embedding, night, cut_ms = _night(data, lane_settings(settings))
    fitted_at = time.perf_counter()
    with progress.stage("measuring the lists on the newest tenth of the visits"):
        metrics = measure(settings, data, night.before, cut_ms, load_live(anchors, live))
    _gate(metrics, settings.anchor_tolerance, force)
    measured_at = time.perf_counter()
    with progress.stage("training on all events"):
        whitened, gram = whiten(fit(data.matrix(), *how), settings.als_regularization)
    trained_at = time.perf_counter()
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
    anchors.keep(version, *([live] if live else []))
    seconds = {
        "read": read_at - started, "fit": fitted_at - read_at, "measure": measured_at - fitted_at,
        "train": trained_at - measured_at, "publish": time.perf_counter() - trained_at,
    }  # fmt: skip
    return {"version": version, **manifest["data"], "metrics": metrics, "seconds": seconds}


def _gate(metrics: dict[str, Any], tolerance: float, force: bool) -> None:
    """Raise Refused where the live anchor is better, unless `force`."""
    worse = why_worse(metrics, tolerance)
    if worse is None:
        return
    if not force:
        raise Refused(f"not published: {worse}; --force publishes it all the same")
    log.warning("published by --force", reason=worse)


def _night(data: Interactions, settings: LaneSettings) -> tuple[npt.NDArray[np.float16], Night, int]:
    """Return (an embedding for every item of `data`, the fit, where the newest slice of the time begins, in ms).

    The newest FIT_EVENTS events are learned from.
    """
    newest = np.argsort(data.ts_ms, kind="stable")[-FIT_EVENTS:]
    events = columns_of(data.user_hash[data.user[newest]], data.item_hash[data.item[newest]], data.ts_ms[newest])
    shop = SimulatedState(len(data.user_hash), len(data.item_hash), settings)
    shop.learn(events)
    view = shop.view()
    by_slot = embed(view.rows, view.slots)
    slots = view.slots.find(data.item_hash)
    embedding = np.where(slots[:, None] >= 0, by_slot[slots], 0).astype(np.float16)
    return embedding, fit_night(events, settings), newest_slice_ms(events, settings.session_gap_ms)


def _read(
    settings: TrainingSettings, log: Log, weights: npt.NDArray[np.float64], now_ms: int, progress: Progress
) -> Interactions:
    start, end = log.start(), log.end()
    total = sum(end[stream] - start.get(stream, 0) for stream in end)
    with progress.reading(total) as advance:
        reader = Reader(open_registry(settings), now_ms, limits_of(settings), settings.connect_timeout_s, advance)
        return read_interactions(log, reader, weights)
