"""`headrace anchors` lists the versions there are; `headrace anchor rollback` publishes the one before."""

import time
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from headrace.cli.verdict import training_lines
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from state.anchor import MANIFEST, METRICS, AnchorDamaged
from state.anchors.contract import AnchorMissing, AnchorStore, AnchorsUnavailable
from state.anchors.last_run import read_last_run, read_next_run
from state.anchors.open_anchors import open_anchors
from state.rows import keys
from state.store.contract import Store, StoreUnavailable

WAIT_S = 60.0


def _text(store: Store, key: bytes) -> str | None:
    value = store.read([key])[0]
    return value.decode() if value else None


def list_anchors(settings: Settings, json: bool) -> int:
    """Print every version with its lineage: data, settings, code, metrics and parent."""
    try:
        store = open_store(settings)
        live = _text(store, keys.ANCHOR_LIVE)
        run, due = read_last_run(store), read_next_run(store)
        store.close()
        anchors = open_anchors(settings)
        found = [_lineage(anchors, version, live) for version in anchors.versions()]
    except (StoreUnavailable, AnchorsUnavailable, AnchorDamaged) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        training = {"last": run and run.model_dump(), "next": due and due.model_dump()}
        print_json({"live": live, "training": training, "anchors": found})
        return OK
    table = Table("version", "made", "parent", "events", "to", "HR@20", "code")
    for one in found:
        data, times = one["data"], [one["created_ms"], one["data"]["last_ms"]]
        made, last = (datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") for ms in times)
        mark = " (live)" if one["live"] else ""
        rate = one["metrics"].get("strategies", {}).get("hybrid", {}).get("HR@20")
        table.add_row(one["version"] + mark, made, one["parent"] or "–", f"{data['events']:,}", last,
                      "–" if rate is None else f"{rate:.4f}", one["code"])  # fmt: skip
    Console().print(table)
    for line in training_lines(run, due):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
    return OK


def _lineage(anchors: AnchorStore, version: str, live: str | None) -> dict[str, Any]:
    manifest = anchors.read_json(version, MANIFEST)
    kept = {key: manifest.get(key) for key in ("version", "created_ms", "parent", "code", "settings", "data")}
    return {**kept, "live": version == live, "metrics": anchors.read_json(version, METRICS)}


def remove(settings: Settings, version: str, json: bool) -> int:
    """Delete a version from the artefact store, unless it is live, about to be, or what a rollback would bring back."""
    try:
        store, anchors = open_store(settings), open_anchors(settings)
        live, published = _text(store, keys.ANCHOR_LIVE), _text(store, keys.ANCHOR_PUBLISHED)
        store.close()
        parent = anchors.read_json(live, MANIFEST)["parent"] if live else None
        if version in (live, published, parent):
            err.print(f"{version} is the live anchor, the one published last or the one before: it stays", markup=False)
            return FAILED
        try:
            anchors.remove(version)
        except AnchorMissing:
            err.print(f"there is no anchor {version} in {anchors.name}", markup=False)
            return FAILED
    except (StoreUnavailable, AnchorsUnavailable, AnchorDamaged) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"removed": version})
    else:
        err.print(f"{version} is removed from {anchors.name}", markup=False)
    return OK


def rollback(settings: Settings, json: bool) -> int:
    """Publish the live anchor's parent and wait until it is live; requests go on meanwhile."""
    try:
        store = open_store(settings)
        live = _text(store, keys.ANCHOR_LIVE)
        anchors = open_anchors(settings)
        parent = anchors.read_json(live, MANIFEST)["parent"] if live else None
        if parent is None:
            err.print("there is no anchor before the live one")
            return FAILED
        anchors.read_json(parent, MANIFEST)  # raises AnchorMissing
        started = time.perf_counter()
        store.write({keys.ANCHOR_PUBLISHED: parent.encode()})
        with err.status(f"{live} goes, {parent} comes back: lanes refold"):
            while _text(store, keys.ANCHOR_LIVE) != parent:
                if time.perf_counter() - started > WAIT_S:
                    err.print(f"{parent} is published, but no flow has made it live within {WAIT_S:.0f} s")
                    return FAILED
                time.sleep(0.05)
        store.close()
    except (StoreUnavailable, AnchorsUnavailable, AnchorDamaged) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    seconds = time.perf_counter() - started
    if json:
        print_json({"live": parent, "before": live, "seconds": round(seconds, 3)})
    else:
        err.print(f"{parent} is live again after {seconds:.1f} s")
    return OK


def command(json: Json = False) -> None:
    """List the anchors there are: data, settings, code, metrics, parent, and which one is live."""
    raise typer.Exit(list_anchors(read_settings(), json))
