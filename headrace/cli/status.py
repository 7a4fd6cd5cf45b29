"""`headrace status`: generations, lanes, owners, positions, lag and anchors."""

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from headrace.console import OK, UNAVAILABLE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from state.generations import generation_names, get_generation, live_generation, previous_generation
from state.rows import keys
from state.store.contract import Positions, Store, StoreUnavailable, decode_positions


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def read_status(store: Store, end: Positions) -> dict[str, Any]:
    """Return the status from the store; `lag` counts messages behind the log's end."""
    live, published = store.read([keys.ANCHOR_LIVE, keys.ANCHOR_PUBLISHED])
    found: dict[str, Any] = {
        "live": live_generation(store),
        "before": previous_generation(store),
        "anchor": _text(live),
        "anchor_published": _text(published),
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


def run(settings: Settings, json: bool) -> int:
    """Print the status; return the exit code."""
    try:
        store = open_store(settings)
        log = open_log(settings.log_address, config=settings.kafka_config)
        found = read_status(store, log.end())
        log.close()
        store.close()
    except (StoreUnavailable, LogUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(found)
        return OK
    table = Table("generation", "lane", "owner", "lag", "positions", title=f"anchor {found['anchor'] or '–'}")
    for name, generation in found["generations"].items():
        mark = " (live)" if name == found["live"] else " (before)" if name == found["before"] else ""
        for lane in generation["lanes"]:
            at = ", ".join(f"{stream} {offset}" for stream, offset in sorted(lane["positions"].items()) if offset)
            table.add_row(name + mark, str(lane["lane"]), lane["owner"] or "–", f"{lane['lag']:,}", at)
    Console().print(table)
    return OK


def command(json: Json = False) -> None:
    """Print generations, lanes, owners, positions, lag and anchors."""
    raise typer.Exit(run(read_settings(), json))
