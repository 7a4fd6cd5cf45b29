"""Which column becomes which field, and what type of event a row is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.loading.cells import is_empty, text_of
from headrace.loading.errors import BadFile
from headrace.loading.fields import ALL, ONLY_PRODUCTS, PREFIXES, SKIP, guess, kind_of
from headrace.loading.presets import Layout
from headrace.loading.source import Source
from schemas.json_events import TOPIC_OF_TYPE
from schemas.similar_names import allowed

Columns = dict[str, tuple[str, ...]]
"""Columns by field; of several, the first that holds something counts."""


@dataclass(frozen=True)
class Mapping:
    """How rows become events."""

    columns: Columns
    kind: str
    """Type of a row whose column of `kind` is empty, or of all where there is none."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Types by the texts of the column of `kind`; `skip` leaves the row aside."""
    guessed: bool = False
    layout: Layout | None = None
    """The preset, where one was given or recognised."""


def pairs_of(text: str, option: str) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of `name=value,…`; a comma in quotes or doubled belongs to a value."""
    pairs = []
    for part in re.findall(r'(?:"[^"]*"|[^,])+', text):
        name, found, value = part.partition("=")
        if not found or not name.strip() or not value.strip():
            raise BadFile(f"{option}: {part.strip()!r} is not NAME=VALUE")
        pairs.append((name.strip().strip('"'), value.strip().strip('"')))
    return pairs


def find_mapping(
    source: Source, sample: Sequence[dict[str, Any]], layout: Layout | None, map: str = "", kind: str = "",
    kinds: str = "", attributes: str = "",
) -> Mapping:  # fmt: skip
    """Return the mapping that options, preset and column names give, in this order. Raises BadFile."""
    given = _given(map, source.columns)
    chosen_kinds = dict(layout.kinds) if layout else {}
    chosen_kinds |= {name: _known_kind(value) for name, value in pairs_of(kinds, "--kinds")}
    if kind:
        _known_kind(kind)
    if layout is not None:
        columns = layout.of(source.columns) | given
        mapping = Mapping(columns, kind or layout.kind or _kind(columns), chosen_kinds, layout=layout)
    elif given:
        mapping = Mapping(given, kind or _kind(given), chosen_kinds)
    else:
        columns = _without_doubt(guess(source.columns), source.columns, sample, kind, chosen_kinds)
        mapping = Mapping(columns, kind or _kind(columns), chosen_kinds, guessed=True)
    mapping = replace(mapping, columns=mapping.columns | _attributes(attributes, source.columns, mapping.columns))
    _check(mapping, source)
    return mapping


def _given(text: str, columns: tuple[str, ...]) -> Columns:
    given: dict[str, tuple[str, ...]] = {}
    for name, column in pairs_of(text, "--map"):
        if name == "ts_ms":
            name = "ts"
        if name not in ALL and not name.startswith(PREFIXES):
            names = (*ALL, "attr.NAME", "context.NAME")
            raise BadFile(f"--map {name}={column}: there is no field {name}{allowed(name, names, 'fields are')}")
        given[name] = tuple(_column(one, columns, f"--map {name}={column}") for one in column.split("|"))
    return given


def _column(name: str, columns: tuple[str, ...], where: str) -> str:
    if name in columns:
        return name
    alike = [one for one in columns if one.strip().lower() == name.strip().lower()]
    if len(alike) == 1:
        return alike[0]
    raise BadFile(f"{where}: there is no column {name!r}{allowed(name, columns, 'the file has the columns')}")


def _known_kind(kind: str) -> str:
    if kind != SKIP and kind not in TOPIC_OF_TYPE:
        names = (*TOPIC_OF_TYPE, SKIP)
        raise BadFile(f"there is no event type {kind!r}{allowed(kind, names, 'types are')} ({SKIP} in --kinds only)")
    return kind


def _kind(columns: Columns) -> str:
    """Return the type that the columns speak of."""
    if "user" not in columns and "session" not in columns and any(name in columns for name in ("title", "price",
            *ONLY_PRODUCTS)):  # fmt: skip
        return "product"
    if "stars" in columns:
        return "rating"
    return "purchase" if "order_id" in columns or "quantity" in columns or "order" in columns else "view"


def _without_doubt(
    columns: Columns, all_columns: tuple[str, ...], sample: Sequence[dict[str, Any]], kind: str, kinds: dict[str, str]
) -> Columns:
    """Return the guess without a column of types that holds other things, and with what depends on the type."""
    columns = dict(columns)
    if "kind" in columns:
        words = {text_of(row[c]) for row in sample for c in columns["kind"] if not is_empty(row.get(c))}
        if not words or sum(word in kinds or kind_of(word) is not None for word in words) * 2 < len(words):
            del columns["kind"]
    is_product = (kind or _kind(columns)) == "product"
    if is_product:
        columns = {name: column for name, column in columns.items() if name not in ("order_id", "quantity", "stars")}
        if "item" not in columns or columns["item"][0].lower() in ("product", "article", "item"):
            named = next((one for one in all_columns if one.lower() in ("id", "sku", "handle")), None)
            if named is not None:
                columns["item"] = (named,)
    elif "kind" not in columns or kind:
        for name in ONLY_PRODUCTS:
            if name != "title":
                columns.pop(name, None)
    if is_product and "kind" in columns:
        del columns["kind"]
    return columns


def _attributes(text: str, columns: tuple[str, ...], taken: Columns) -> Columns:
    names = {column for group in taken.values() for column in group}
    wanted = [one.strip() for one in text.split(",") if one.strip()]
    if "*" in wanted:
        return {f"attr.{column}": (column,) for column in columns if column not in names}
    return {f"attr.{_column(one, columns, '--attributes')}": (_column(one, columns, "--attributes"),) for one in wanted}


def _check(mapping: Mapping, source: Source) -> None:
    """Raise BadFile where a needed field has no column."""
    found = f"the file has the columns {', '.join(source.columns)}"
    columns = mapping.columns
    if "item" not in columns and mapping.kind not in ("search", "erasure"):
        raise BadFile(f"no column is the item: give --map item=COLUMN,…; {found}")
    if mapping.kind in ("product", "product_gone"):
        return
    if "ts" not in columns and not (mapping.layout and mapping.layout.clock):
        raise BadFile(f"no column is the time: give --map ts=COLUMN,… (events are loaded in time order); {found}")
    if "user" not in columns and "session" not in columns:
        raise BadFile(f"no column is the visitor: give --map user=COLUMN,… or session=COLUMN; {found}")


def unused(mapping: Mapping, source: Source) -> list[str]:
    """Return the columns that become nothing."""
    used = {column for columns in mapping.columns.values() for column in columns}
    return [column for column in source.columns if column not in used]
