"""`headrace status`: generations, lanes, owners, positions, lag, anchors and trainings, and a verdict."""

import ssl
import time
import urllib.request
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from headrace.cli.verdict import last_run, training_lines, verdict
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, read_settings
from headrace.options import Json
from headrace.run_file import is_running, read_run_file
from headrace.settings import Settings
from state.anchors.last_run import read_last_run, read_next_run
from state.generations import generation_names, get_generation, live_generation, previous_generation
from state.rows import keys
from state.store.contract import Positions, Store, StoreUnavailable, decode_positions

TIMEOUT_S = 1.0
"""Of one attempt; the client makes four."""


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def read_status(store: Store, end: Positions) -> dict[str, Any]:
    """Return the status from the store; `lag` counts messages behind the log's end."""
    live, published = store.read([keys.ANCHOR_LIVE, keys.ANCHOR_PUBLISHED])
    last, due = read_last_run(store), read_next_run(store)
    found: dict[str, Any] = {
        "live": live_generation(store),
        "before": previous_generation(store),
        "anchor": _text(live),
        "anchor_published": _text(published),
        "training": {"last": last and last.model_dump(), "next": due and due.model_dump()},
        "generations": {},
    }
    for name in generation_names(store):
        generation = get_generation(store, name)
        lanes = []
        for lane, prefix in enumerate(generation.prefixes):
            positions, owner, ready, owes = store.read(
                [keys.positions(prefix), keys.owner(prefix), keys.anchor_ready(prefix), keys.owes_vectors(prefix)]
            )
            at = decode_positions(positions)
            lag = {stream: offset - at.get(stream, 0) for stream, offset in (generation.until or end).items()}
            lanes.append({
                "lane": lane, "owner": _text(owner), "anchor_ready": _text(ready), "positions": at,
                "lag": sum(max(behind, 0) for behind in lag.values()), "owes_vectors": owes is not None,
            })  # fmt: skip
        found["generations"][name] = {"settings": generation.fold, "lanes": lanes}
    return found


def read_server(settings: Settings) -> dict[str, Any]:
    """Return address and readiness of the server of the `headrace up` that runs on the data folder, if one does."""
    running = read_run_file(settings.data_dir) if is_running(settings.data_dir) else None
    if running is None:
        return {}
    url, context = running["http"], ssl._create_unverified_context()  # whoever the certificate names
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=TIMEOUT_S, context=context) as answer:
            return {"server": url, "server_ready": answer.status == 200}
    except OSError:
        return {"server": url, "server_ready": False}


def run(settings: Settings, json: bool) -> int:
    """Print the status; return the exit code: FAILED when something is wrong."""
    try:
        store = open_store(settings, timeout_s=TIMEOUT_S)
        log = open_log(settings.log_address, config=settings.kafka_config)
        found = read_status(store, log.end()) | read_server(settings)
        log.close()
        store.close()
    except (StoreUnavailable, LogUnavailable) as error:
        if json:
            print_json({"well": False, "verdict": f"not well: {error}"})
        err.print(str(error), markup=False)
        return UNAVAILABLE
    well, sentence = verdict(found, time.time_ns() // 1_000_000)
    if json:
        print_json({**found, "well": well, "verdict": sentence})
    else:
        Console().print(_table(found))
        for line in training_lines(last_run(found), None):
            Console().print(line, markup=False, highlight=False, soft_wrap=True)
        Console().print(sentence, markup=False, highlight=False, style="" if well else "bold red", soft_wrap=True)
    return OK if well else FAILED


def _table(found: dict[str, Any]) -> Table:
    table = Table("generation", "lane", "owner", "lag", "positions", title=f"anchor {found['anchor'] or '–'}")
    for name, generation in found["generations"].items():
        mark = " (live)" if name == found["live"] else " (before)" if name == found["before"] else ""
        for lane in generation["lanes"]:
            at = ", ".join(f"{stream} {offset}" for stream, offset in sorted(lane["positions"].items()) if offset)
            table.add_row(name + mark, str(lane["lane"]), lane["owner"] or "–", f"{lane['lag']:,}", at)
    return table


def command(json: Json = False) -> None:
    """Print generations, lanes, owners, positions, lag and anchors, and a verdict; exit code 1 when ill."""
    raise typer.Exit(run(read_settings(), json))
