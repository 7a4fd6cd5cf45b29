"""A row becomes an event, as `POST /v1/events` takes it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from headrace.loading.cells import (
    available_of,
    category_of,
    is_empty,
    number_of,
    picture_of,
    stock_of,
    text_of,
    whole_of,
)
from headrace.loading.countries import code_of
from headrace.loading.errors import BadCell
from headrace.loading.fields import NUMBERS, SKIP, fields_of, kind_of
from headrace.loading.mapping import Mapping
from headrace.loading.times import TimeFormat, milliseconds_of
from schemas.json_events import LINE_FIELDS, TOPIC_OF_TYPE

PURCHASE_FIELDS = ("event_id", "user", "session", "order_id", "country", "context", *LINE_FIELDS)
FIELDS_BY_KIND = {kind: frozenset(fields_of(kind)) for kind in TOPIC_OF_TYPE} | {"purchase": frozenset(PURCHASE_FIELDS)}


class Writing(NamedTuple):
    """How a file writes its values."""

    times: TimeFormat = TimeFormat()
    decimal: str = "."


class Made(NamedTuple):
    """What one row is."""

    event: dict[str, Any] | None
    """None: the row is left aside."""
    order: str = ""
    """What it shares with the other lines of its order; empty: it is none of an order."""
    dropped: tuple[str, ...] = ()
    """Fields that its type does not have."""
    about: dict[str, Any] | None = None
    """What the row says of its item besides: title, picture …"""


class RowMapper:
    """Turns rows into events by a mapping."""

    def __init__(self, mapping: Mapping, writing: Writing, replace: bool = False) -> None:
        self._mapping, self._writing, self._replace = mapping, writing, replace
        layout = mapping.layout
        self._others = layout.others if layout is not None else "refuse"
        self._path_mark = layout.category if layout is not None else ""
        self._least_stars = layout.least_stars if layout is not None else 0.0
        special = ("ts", "kind", "order", "availability", "stock")
        self._plan: list[tuple[str, tuple[str, ...], Callable[[Any], Any]]] = [
            (field, columns, self._convert(field))
            for field, columns in mapping.columns.items()
            if field not in special and not field.startswith(("attr.", "context."))
        ]
        self._maps = [(*field.partition(".")[::2], columns) for field, columns in mapping.columns.items()
                      if field.startswith(("attr.", "context."))]  # fmt: skip

    def made_of(self, row: dict[str, Any]) -> Made:
        """Return the event of a row. Raises BadCell."""
        kind = self._kind(row)
        if kind == SKIP:
            return Made(None)
        event: dict[str, Any] = {"type": kind}
        for field, columns, convert in self._plan:
            for column in columns:
                cell = row.get(column)
                if cell is None or cell == "" or is_empty(cell):
                    continue
                event[field] = convert(cell)
                break
        if kind == "purchase" and event.get("quantity", 1) < 0:
            event["type"] = kind = "return"
        self._add_time(event, row)
        self._add_stock(event, row)
        for prefix, name, columns in self._maps:
            cell = _first(row, columns)
            if cell is not None:
                event.setdefault("attributes" if prefix == "attr" else "context", {})[name] = text_of(cell)
        return self._fitted(kind, event, row)

    def _convert(self, field: str) -> Callable[[Any], Any]:
        decimal = self._writing.decimal
        if field == "stars":
            return lambda cell: max(number_of("stars", cell, decimal), self._least_stars)
        if field in NUMBERS:
            return lambda cell: number_of(field, cell, decimal)
        if field == "category":
            return self._category
        if field == "image_url":
            return picture_of
        if field == "country":
            return lambda cell: code_of(text_of(cell))
        return (lambda cell: whole_of(field, cell, decimal)) if field == "position" else text_of

    def _category(self, cell: Any) -> str:
        if self._path_mark == "|":  # several, not a path
            return text_of(cell).split("|")[0].replace("/", "-")
        text = category_of(cell)
        return text.replace(self._path_mark, "/") if self._path_mark and self._path_mark != ">" else text

    def _kind(self, row: dict[str, Any]) -> str:
        cell = _first(row, self._mapping.columns.get("kind", ()))
        if cell is None:
            return self._mapping.kind
        word = text_of(cell)
        kind = self._mapping.kinds.get(word) or (kind_of(word) if self._others == "refuse" else SKIP)
        if kind is None:
            raise BadCell("kind", f"{word!r:.40} is no type of event that is known: --kinds {word:.40}=view "
                          f"(or =skip) says what it is")  # fmt: skip
        return kind

    def _add_time(self, event: dict[str, Any], row: dict[str, Any]) -> None:
        columns = self._mapping.columns.get("ts", ())
        if not columns:
            return
        cell = _first(row, columns)
        if cell is not None:
            event["ts_ms"] = milliseconds_of(cell, self._writing.times)
        elif event["type"] not in ("product", "product_gone"):
            raise BadCell("ts", "is empty")

    def _add_stock(self, event: dict[str, Any], row: dict[str, Any]) -> None:
        """Set the units in stock; without a count those that a word of availability stands for."""
        columns = self._mapping.columns
        counted, word = _first(row, columns.get("stock", ())), _first(row, columns.get("availability", ()))
        if counted is not None:
            event["stock"] = stock_of(counted, self._writing.decimal)
        elif word is not None:
            event["stock"] = available_of(word)

    def _fitted(self, kind: str, event: dict[str, Any], row: dict[str, Any]) -> Made:
        """Return the event with the fields of its type, and what else the row said."""
        order = ""
        if kind == "purchase":
            if "order_id" in event and "user" not in event and "session" not in event:
                event["session"] = event["order_id"]  # a guest's order: a visitor of its own
            visitor = event.get("user") or event.get("session", "")
            by = [text_of(cell) for column in self._mapping.columns.get("order", ())
                  if (cell := row.get(column)) is not None]  # fmt: skip
            if event.get("order_id") or by:
                order = "\0".join([visitor, event.get("order_id", ""), *by])
        if kind == "product" and self._replace:
            event["replace"] = True
        allowed = FIELDS_BY_KIND[kind]
        extra = [name for name in event if name not in allowed and name not in ("type", "ts_ms", "replace")]
        about: dict[str, Any] = {name: event[name] for name in ("title", "image_url") if name in extra}
        for name in extra:
            del event[name]
        return Made(event, order, tuple(name for name in extra if name not in about), about or None)


def _first(row: dict[str, Any], columns: tuple[str, ...]) -> Any:
    for column in columns:
        cell = row.get(column)
        if not is_empty(cell):
            return cell
    return None
