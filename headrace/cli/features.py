"""`headrace features`: the feature registry, or the features of one user or item."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.events import Kind
from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from state.generations import live_generation, read_generation
from state.rows import keys
from state.rows.features import FEATURES, Reading, read_features
from state.store.contract import StoreUnavailable

HASHED = ("user.history", "user.categories", "user.brands")
"""Features that hold hashes of names."""


def list_features(json: bool) -> int:
    """Print every feature: type, unit, row, freshness and meaning."""
    described = {
        f.name: {"type": f.type, "unit": f.unit, "row": f.row, "freshness": f.freshness, "meaning": f.meaning}
        for f in FEATURES
    }
    return _print(described, "features", json)


def show(settings: Settings, kind: Any, name: str, json: bool) -> int:
    """Print the features of the user or item `name` in the live generation."""
    try:
        store = open_store(settings)
        generation = live_generation(store) or settings.generation
        record = read_generation(store, generation)
        settings = record.settings(settings) if record else settings
        prefixes = [keys.prefix(generation, lane) for lane in range(settings.n_lanes)]
        row_hash = hash_id(name)
        key_of = keys.user if kind == "user" else keys.item
        row = store.read([key_of(prefixes[row_hash % len(prefixes)], row_hash)])[0]
        catalogue = Catalogue(prefixes)
        catalogue.refresh(store, store.read([keys.lane_globals(prefix) for prefix in prefixes]))
        store.close()
    except StoreUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    half_lives = (int(settings.short_half_life_s * 1000), int(settings.long_half_life_s * 1000))
    found = read_features(kind, row, Reading(time.time_ns() // 1_000_000, half_lives))
    if found is None:
        err.print(f"{kind} {name!r} has no row in generation {generation}", markup=False)
        return FAILED
    names = names_of(catalogue)
    if json:
        print_json({**found, "names": {key: names[key] for key in sorted(_hashes(found) & names.keys())}})
        return OK
    return _print(readable(found, names), f"{kind} {name}", json)


def names_of(catalogue: Catalogue) -> dict[str, str]:
    """Return the names behind the hashes that features have: items' ids, categories and brands."""
    names = {f"{item:016x}": name for item, name in zip(catalogue.hashes().tolist(), catalogue.ids, strict=True)}
    for word in (*catalogue.text("category").words, *catalogue.text("brand").words):
        names[f"{hash_id(word) & 0xFFFFFFFF:08x}"] = word
    return names


def _hashes(found: dict[str, Any]) -> set[str]:
    return {one for name in HASHED for one in found.get(name, ())}


def readable(found: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return features for people: names for hashes that have one, names of kinds, dates for times."""
    shown = dict(found)
    for name, value in found.items():
        if name.endswith("_ms") and value is not None:
            shown[name] = datetime.fromtimestamp(value / 1000, UTC).isoformat(" ", "seconds")
        elif name == "user.history_kinds":
            shown[name] = [Kind(kind).name.lower() for kind in value]
        elif name in HASHED:
            named = [names.get(key, key) for key in value]
            shares = value.values() if isinstance(value, dict) else ()
            shown[name] = dict(zip(named, (f"{v:.0%}" for v in shares), strict=True)) if shares else named
    return shown


def _print(values: dict[str, Any], title: str, json: bool) -> int:
    if json:
        print_json(values)
        return OK
    table = Table("feature", "value", title=title)
    for name, value in values.items():
        shown = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, shown)
    Console().print(table)
    return OK


def command(
    user: Annotated[str, typer.Option(help="Show the features of this user.")] = "",
    item: Annotated[str, typer.Option(help="Show the features of this item (lane of its hash).")] = "",
    json: Json = False,
) -> None:
    """Print the feature registry, or the live features of one user or item."""
    if user or item:
        raise typer.Exit(show(read_settings(), "user" if user else "item", user or item, json))
    raise typer.Exit(list_features(json))
