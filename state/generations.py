"""Generations: full sets of rows side by side, what each was folded with, and which one is live.

headrace:generation          name of the live one
headrace:generation:before   name of the one that was live before (for `rollback`)
headrace:generation:<name>   its record (JSON)
"""

import secrets
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from schemas.ids import fingerprint
from state.rows import keys
from state.settings import PREFIX, BadSettings, FoldSettings, StoreSettings
from state.store.contract import Positions, RowReader, Store

FOLD_SETTINGS = tuple(FoldSettings.model_fields)
"""Settings the rows depend on: fixed for the life of a generation."""


Values = TypeVar("Values", bound=StoreSettings)


class UnknownGeneration(Exception):
    """There is no such generation."""


class Generation(BaseModel):
    """The record of a generation: the settings it was folded with, and the positions it began at."""

    model_config = ConfigDict(frozen=True)

    name: str
    fold: dict[str, Any]
    start: Positions = {}
    """First offsets folded; a stream that is absent was folded from its earliest message."""
    until: Positions | None = None
    """A replay of a closed range ends here; None: the generation follows the log."""
    erasures: Positions = {}
    """A replay knows the erasures before these offsets from its start: what those users did before is not folded."""
    created_ms: int = 0
    id_key: str = ""
    """Fingerprint of the key its ids were hashed with (`schemas.ids`)."""
    topics: dict[str, str] = {}
    """Ids of the topics it is folded from: its positions mean nothing in others of the same names."""

    def settings(self, settings: Values) -> Values:
        """Return the settings with this generation's own; raises BadSettings where this process hashes ids otherwise.

        Such a process would find no row, or write rows that nobody else finds.
        """
        if self.id_key != fingerprint():
            raise BadSettings(
                f"generation {self.name} was folded with another key of ids than this process has; restore that key, "
                f"as {PREFIX}ID_KEY or in {settings.data_dir / 'id.key'}; if it is lost, `headrace replay NAME` folds "
                "the log into a new generation with the present key, and `headrace switch NAME` makes it the live one"
            )
        return settings.model_copy(update={**self.fold, "generation": self.name})

    @property
    def prefixes(self) -> list[bytes]:
        """Key prefixes of its lanes."""
        return [keys.prefix(self.name, lane) for lane in range(self.fold["n_lanes"])]


def new_generation(
    name: str,
    settings: FoldSettings,
    now_ms: int,
    start: Positions | None = None,
    until: Positions | None = None,
    erasures: Positions | None = None,
) -> Generation:
    """Return the record of a generation folded with these settings."""
    fold = {setting: getattr(settings, setting) for setting in FOLD_SETTINGS}
    return Generation(
        name=name, fold=fold, start=start or {}, until=until, erasures=erasures or {}, created_ms=now_ms,
        id_key=fingerprint(),
    )  # fmt: skip


def read_generation(store: RowReader, name: str) -> Generation | None:
    """Return a generation's record, None where there is none."""
    value = store.read([keys.generation(name)])[0]
    return Generation.model_validate_json(value) if value else None


def get_generation(store: Store, name: str) -> Generation:
    """Return the record; raises UnknownGeneration naming those there are."""
    found = read_generation(store, name)
    if found is None:
        there = ", ".join(generation_names(store)) or "none"
        raise UnknownGeneration(f"there is no generation {name!r}; there are: {there}")
    return found


def write_generation(store: Store, generation: Generation) -> None:
    """Write the record, and then a new mark, by which others see that their list of generations may be old."""
    store.write({keys.generation(generation.name): orjson.dumps(generation.model_dump())})
    store.write({keys.GENERATION_CHANGED: secrets.token_hex(8).encode()})


def generation_names(store: Store) -> list[str]:
    """Return the names of all generations with a record."""
    first = keys.generation("")
    found = {key for chunk in store.scan(first) for key in chunk}
    return sorted(key[len(first) :].decode() for key in found)


def live_generation(store: RowReader) -> str | None:
    """Return the name of the live generation, None before the first flow ever ran."""
    value = store.read([keys.GENERATION])[0]
    return value.decode() if value else None


def switch_generation(store: Store, name: str) -> str | None:
    """Make a generation the live one; return the one before. Raises UnknownGeneration."""
    get_generation(store, name)
    before = live_generation(store)
    if before != name:
        store.write({keys.GENERATION: name.encode(), keys.GENERATION_BEFORE: before.encode() if before else None})
    return before


def previous_generation(store: Store) -> str | None:
    """Return the name of the generation that was live before, if one was."""
    value = store.read([keys.GENERATION_BEFORE])[0]
    return value.decode() if value else None
