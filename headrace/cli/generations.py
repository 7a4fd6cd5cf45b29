"""`headrace switch`, `rollback` and `drop`: which generation is live, and which goes."""

from collections.abc import Callable

from flows.connect import open_store
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, progress_bar
from headrace.settings import Settings
from state.generations import (
    UnknownGeneration,
    get_generation,
    live_generation,
    previous_generation,
    switch_generation,
)
from state.rows import keys
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

CHUNK = 500


class Refused(Exception):
    """The command would do harm."""


def _with_store(settings: Settings, act: Callable[[RedisStore], dict[str, object]], json: bool) -> int:
    try:
        store = open_store(settings)
        try:
            done = act(store)
        finally:
            store.close()
    except (UnknownGeneration, Refused) as error:
        err.print(str(error), markup=False)
        return FAILED
    except StoreUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json(done)
    else:
        err.print(", ".join(f"{key}: {value}" for key, value in done.items()), markup=False)
    return OK


def switch(settings: Settings, name: str, json: bool) -> int:
    """Make a generation the live one; flows and servers follow within a second."""

    def act(store: RedisStore) -> dict[str, object]:
        generation = get_generation(store, name)
        if all(value is None for value in store.read([keys.positions(prefix) for prefix in generation.prefixes])):
            raise Refused(f"{name} holds no rows yet")
        before = switch_generation(store, name)
        return {"live": name, "before": before}

    return _with_store(settings, act, json)


def rollback(settings: Settings, json: bool) -> int:
    """Make the generation live again that was live before."""

    def act(store: RedisStore) -> dict[str, object]:
        before = previous_generation(store)
        if before is None:
            raise Refused("there is no generation to roll back to")
        return {"live": before, "before": switch_generation(store, before)}

    return _with_store(settings, act, json)


def drop(settings: Settings, name: str, json: bool) -> int:
    """Remove a generation's rows in chunks, its record last."""

    def act(store: RedisStore) -> dict[str, object]:
        generation = get_generation(store, name)
        if live_generation(store) == name:
            raise Refused(f"{name} is the live generation; switch to another one first")
        gone = 0
        with progress_bar("rows") as bar:
            task = bar.add_task(f"dropping {name}", total=None, rate=0.0)
            for prefix in generation.prefixes:
                for found in store.scan(prefix):
                    store.write(dict.fromkeys(found))
                    gone += len(found)
                    bar.update(task, completed=gone)
        pointers: dict[bytes, bytes | None] = {keys.generation(name): None, keys.members(name): None}
        if previous_generation(store) == name:
            pointers[keys.GENERATION_BEFORE] = None
        store.write(pointers)
        return {"dropped": name, "rows": gone}

    return _with_store(settings, act, json)
