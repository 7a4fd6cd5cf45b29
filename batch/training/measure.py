"""Measures a new anchor on events that it was not trained on, beside the live anchor."""

from typing import Any, NamedTuple

import numpy as np
import structlog

from batch.settings import TrainingSettings
from batch.training.als import fit, whiten
from batch.training.comparison import LEAST_JUDGED, Live, compare, figures_of, lists_of
from batch.training.interactions import Interactions
from batch.training.nightly import Before
from batch.training.served_lists import Factors, HeldOut, Scoring
from flows.settings import lane_settings
from serving.scoring.parameters import params_from
from serving.scoring.tree_ensemble import forest_from
from state.anchor import Anchor, AnchorDamaged, load_anchor, load_metrics, read_manifest
from state.anchors.contract import AnchorStore, AnchorsUnavailable

HELD_OUT = 0.1
log = structlog.get_logger()


class LiveAnchor(NamedTuple):
    """The anchor that is live when another one is trained."""

    anchor: Anchor
    trained_to_ms: int
    """Time of the newest event it was trained on."""
    figures: dict[str, Any]
    """By strategy, measured when it was made; empty for one of an older version."""


def load_live(anchors: AnchorStore, version: str | None) -> LiveAnchor | None:
    """Return the live anchor, None where there is none that can be loaded."""
    if version is None:
        return None
    try:
        path = anchors.fetch(version)
        figures = load_metrics(path).get("strategies", {})
        return LiveAnchor(load_anchor(path), int(read_manifest(path)["data"]["last_ms"]), figures)
    except (AnchorDamaged, AnchorsUnavailable, OSError) as error:
        log.warning("the live anchor cannot be loaded; the new one is not compared with it", error=str(error))
        return None


def als_factors(settings: TrainingSettings, data: Interactions, visits: HeldOut) -> Factors:
    """Return the factors that the settings give, of the events before the cut."""
    whitened, _ = whiten(
        fit(data.matrix(visits.past), min(settings.factors, len(data.item_hash)), settings.als_regularization,
            settings.als_alpha, settings.als_iterations, settings.als_threads), settings.als_regularization,
    )  # fmt: skip
    return Factors(whitened, settings.als_alpha)


def measure(
    settings: TrainingSettings, data: Interactions, before: Before, cut_ms: int, live: LiveAnchor | None
) -> dict[str, Any]:
    """Return the figures of the lists that a new anchor gives, and how they compare with the live anchor's.

    `before`: what the night's training makes of the events up to `cut_ms`. Where visitors have done enough since the
    live anchor was trained, both anchors answer for that. Otherwise the new one answers for everything after the cut,
    which the live one has learned from: the figures of its own training stand for it. Where visits are so long that
    too few predictions lie behind the cut, the newest tenth of the events is held out; the fit has seen some of it.
    """
    lane = lane_settings(settings)
    visits, answers = HeldOut(data, cut_ms, lane), False
    if len(visits) < LEAST_JUDGED:
        cut_ms = min(cut_ms, int(np.quantile(data.ts_ms, 1 - HELD_OUT)))
        visits = HeldOut(data, cut_ms, lane)
    if live is not None:
        since = HeldOut(data, max(cut_ms, live.trained_to_ms), lane)
        if len(since) >= LEAST_JUDGED:
            visits, answers = since, True
    if not len(visits):
        return compare(visits, {}, None)
    scoring = Scoring(before.params, before.forest)
    lists = lists_of(visits, scoring, als_factors(settings, data, visits))
    if live is None:
        return compare(visits, lists, None)
    theirs = lists_of(visits, *_as_served(live.anchor, data)) if answers else None
    figures = live.figures if theirs is None else figures_of(theirs, visits.target)
    return compare(visits, lists, Live(live.anchor.version, figures, theirs))


def _as_served(anchor: Anchor, data: Interactions) -> tuple[Scoring, Factors]:
    """Return what an anchor gives to a server, by item of the data."""
    row = anchor.row_of(data.item_hash)
    whitened = np.where(row[:, None] >= 0, anchor.whitened[row], 0).astype(np.float32)
    embedding = None if anchor.embedding is None else np.where(row[:, None] >= 0, anchor.embedding[row], 0)
    scoring = Scoring(params_from(anchor.mixture), forest_from(anchor.trees), embedding)
    return scoring, Factors(whitened, anchor.alpha)
