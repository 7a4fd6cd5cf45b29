"""`headrace keys`: who may do what."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headrace.console import OK, WRONG_USAGE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.similar_names import allowed
from serving.auth.access import PRESETS, SCOPES
from serving.auth.api_keys import BadKeys, make_key, read_keys, write_keys

USAGE = f"""use `keys list`, `keys remove NAME`, or `keys add NAME` with
  --preset {"|".join(PRESETS)}, or
  --scope {"|".join(SCOPES)} (may repeat)"""


def run(settings: Settings, action: str, name: str, preset: str, scopes: list[Any], per_second: int, json: bool) -> int:
    """List, add or remove keys; return the exit code."""
    path = settings.keys_path
    wrong = [f"there is no scope {one!r}{allowed(one, SCOPES)}" for one in scopes if one not in SCOPES]
    if preset and preset not in PRESETS:
        wrong.append(f"there is no preset {preset!r}{allowed(preset, PRESETS)}")
    try:
        keys = read_keys(path)
    except BadKeys as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    if action == "list":
        return _list([key.model_dump(exclude={"sha256"}) for key in keys], json)
    if action not in ("add", "remove") or not name or wrong:
        err.print("\n".join([*wrong, USAGE]), markup=False, highlight=False)
        return WRONG_USAGE
    there = [key for key in keys if key.name == name]
    if action == "remove":
        if not there:
            err.print(f"there is no key {name!r}", markup=False)
            return WRONG_USAGE
        write_keys(path, [key for key in keys if key.name != name])
        err.print(f"{name} is removed; servers follow within a second", markup=False)
        return OK
    if there:
        err.print(f"there is a key {name!r} already", markup=False)
        return WRONG_USAGE
    chosen = {*scopes, *PRESETS.get(preset, ())} or {"recommend"}
    secret, key = make_key(name, tuple(scope for scope in SCOPES if scope in chosen), per_second)
    write_keys(path, [*keys, key])
    if json:
        print_json({"name": name, "key": secret, "scopes": list(key.scopes)})
    else:
        err.print(f"the key of {name}, shown this once; only its hash is kept:", markup=False)
        Console().print(secret, markup=False, highlight=False)
    return OK


def _list(keys: list[dict[str, Any]], json: bool) -> int:
    if json:
        print_json({"keys": keys})
        return OK
    table = Table("name", "scopes", "lists a second")
    for key in keys:
        table.add_row(key["name"], ", ".join(key["scopes"]), str(key["per_second"] or "no limit"))
    Console().print(table)
    return OK


def command(
    action: Annotated[str, typer.Argument(help="list, add NAME or remove NAME")] = "list",
    name: Annotated[str, typer.Argument(help="Whose key it is.")] = "",
    preset: Annotated[
        str,
        typer.Option(
            help="Scopes of one kind of caller. storefront: recommend, events; backend: also catalogue, privacy;"
            " admin: all."
        ),
    ] = "",
    scope: Annotated[
        list[str],
        typer.Option(
            help="recommend: lists of items (the default). events: send what visitors do. catalogue: send and remove"
            " products. privacy: erase users, read their histories. rules: read and replace the book. operate: metrics"
            " and live numbers. May repeat."
        ),
    ] = [],  # noqa: B006
    per_second: Annotated[int, typer.Option(min=0, help="Recommendations a second; 0: no limit.")] = 0,
    json: Json = False,
) -> None:
    """API keys: list, add, remove. A key is shown once; only its hash is kept."""
    raise typer.Exit(run(read_settings(), action, name, preset, scope, per_second, json))
