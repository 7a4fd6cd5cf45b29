"""`headrace keys`: who may read, send events and administer."""

from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from serving.api_keys import BadKeys, Scope, make_key, read_keys, write_keys
from serving.cli.console import OK, WRONG_USAGE, err, print_json
from state.settings import Settings


def run(settings: Settings, action: str, name: str, scopes: list[Any], per_second: int, json: bool) -> int:
    """List, add or remove keys; return the exit code."""
    path = settings.keys_path
    wrong = [scope for scope in scopes if scope not in get_args(Scope)]
    try:
        keys = read_keys(path)
    except BadKeys as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    if action == "list":
        return _list([key.model_dump(exclude={"sha256"}) for key in keys], json)
    if action not in ("add", "remove") or not name or wrong:
        err.print("use `keys list`, `keys add NAME --scope read|events|admin` or `keys remove NAME`", markup=False)
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
    secret, key = make_key(name, tuple(scopes or ["read"]), per_second)
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
    table = Table("name", "scopes", "a second")
    for key in keys:
        table.add_row(key["name"], ", ".join(key["scopes"]), str(key["per_second"] or "no limit"))
    Console().print(table)
    return OK
