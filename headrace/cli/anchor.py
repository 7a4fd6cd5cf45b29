"""`headrace anchor`: train on the log, write a version, publish it."""

import os
import time
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Annotated, Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import structlog
import typer
from rich.console import Console
from rich.table import Table

from batch.training.als import fit, hold_out, recall, whiten
from batch.training.embedding import embed
from batch.training.interactions import Interactions, read_interactions
from batch.training.nightly import Night, fit_night
from batch.training.simulated_shop import SimulatedState, columns_of
from flows.connect import open_store
from flows.fold.settings import LaneSettings
from flows.log.contract import Log, LogUnavailable, PositionLost
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.settings import lane_settings, limits_of
from headrace.cli.anchors import remove, rollback
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from serving.retrieval.build import build_index
from serving.scoring.tree_ensemble import written_down
from state.anchor import Anchor, AnchorDamaged, load_anchor, load_metrics, read_manifest, save_anchor
from state.anchors.contract import AnchorStore, AnchorsUnavailable
from state.anchors.open_anchors import open_anchors
from state.rows import keys
from state.store.contract import StoreUnavailable

LEAST_ITEMS = 2
LEAST_JUDGED = 50
log = structlog.get_logger()
FIT_EVENTS = 2_000_000


class TooLittleData(Exception):
    """There is nothing to train on."""


class Refused(Exception):
    """The new anchor is worse than the current one."""


def train_anchor(
    settings: Settings, log: Log, now_ms: int, current: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Train, write a new anchor folder and return its summary.

    Raises TooLittleData, AnchorsUnavailable; and Refused when the `current` anchor finds more of the held-out
    events than the new model does, unless `force`.
    """
    anchors = open_anchors(settings)
    there = anchors.versions()
    weights = lane_settings(settings).fold_params().weights
    started = time.perf_counter()
    data = _read(settings, log, weights, now_ms)
    if len(data.item_hash) < LEAST_ITEMS or not len(data.user_hash):
        raise TooLittleData(f"the log holds {len(data.weight)} interactions with items; there is nothing to train on")
    read_at = time.perf_counter()
    factors = min(settings.factors, len(data.item_hash))
    how = (factors, settings.als_regularization, settings.als_alpha, settings.als_iterations, settings.als_threads)
    with err.status("measuring on the newest tenth of the events"):
        metrics = _measure(settings, data, factors, _load_current(anchors, current))
    _gate(metrics, settings.anchor_tolerance, current, force)
    measured_at = time.perf_counter()
    with err.status("training on all events"):
        whitened, gram = whiten(fit(data.matrix(), *how), settings.als_regularization)
    trained_at = time.perf_counter()
    with err.status("embedding the rows and fitting the scoring"):
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
    with err.status(f"publishing in {anchors.name}"):
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


def _measure(settings: Settings, data: Interactions, factors: int, current: _Current | None) -> dict[str, Any]:
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
    said = f"recall@20 on the held-out events is {new:.4f}, that of the current anchor {current} {old:.4f}"
    if not force:
        raise Refused(f"not published: {said}; --force publishes it all the same")
    log.warning("published by --force", reason=said)


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


def _read(settings: Settings, log: Log, weights: np.ndarray[Any, Any], now_ms: int) -> Interactions:
    start, end = log.start(), log.end()
    total = sum(end[stream] - start.get(stream, 0) for stream in end)
    began = time.perf_counter()
    with progress_bar("messages") as bar:
        task = bar.add_task("reading the log", total=total, rate=0.0)
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, completed=done, rate=done / (time.perf_counter() - began))

        registry = open_registry(settings)
        patience_s = settings.connect_timeout_s
        return read_interactions(log, registry, weights, now_ms, limits_of(settings), patience_s, advance)


def run_anchor(settings: Settings, json: bool, force: bool = False) -> int:
    """Train and publish; print a summary; return the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        store = open_store(settings, patient=True)
        events = open_log(settings.log_address, config=settings.kafka_config)
        live = store.read([keys.ANCHOR_LIVE])[0]
        current = live.decode() if live else None
        summary = train_anchor(settings, events, time.time_ns() // 1_000_000, current, force)
        events.close()
        store.write({keys.ANCHOR_PUBLISHED: summary["version"].encode()})
        store.close()
    except (TooLittleData, Refused, PositionLost) as error:
        err.print(str(error), markup=False)
        return FAILED
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable, AnchorsUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(summary)
    else:
        table = Table("anchor", summary["version"], title="published; lanes refold, then servers follow")
        for name in ("events", "users", "items"):
            table.add_row(name, f"{summary[name]:,}")
        for name, value in {**summary["metrics"], **summary["seconds"]}.items():
            table.add_row(name, f"{value:,.4g}" if isinstance(value, int | float) else str(value or "–"))
        Console().print(table)
    return OK


def command(
    action: Annotated[str, typer.Argument(help="train, rollback to the anchor before, or remove one")] = "train",
    version: Annotated[str, typer.Argument(help="The anchor that is removed.")] = "",
    force: Annotated[bool, typer.Option(help="Publish even if it finds less than the current one.")] = False,
    json: Json = False,
) -> None:
    """Train the nightly models on the log and publish them; flows refold, then servers follow."""
    if action == "rollback":
        raise typer.Exit(rollback(read_settings(), json))
    if action == "remove" and version:
        raise typer.Exit(remove(read_settings(), version, json))
    if action != "train" or version:
        err.print(
            "use `anchor`, `anchor train`, `anchor rollback` or `anchor remove VERSION`; "
            f"got {f'{action} {version}'.strip()!r}",
            markup=False,
        )
        raise typer.Exit(WRONG_USAGE)
    raise typer.Exit(run_anchor(read_settings(), json, force))
