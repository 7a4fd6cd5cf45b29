"""A file is read once, checked row by row and kept in a spool, so that it is understood before anything is loaded."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headrace.loading.cells import decimal_mark, is_empty, text_of
from headrace.loading.errors import BadCell, BadFile
from headrace.loading.events_of_rows import Made, RowMapper, Writing
from headrace.loading.fields import NUMBERS, SKIP
from headrace.loading.findings import FIRST, Findings
from headrace.loading.mapping import Mapping, find_mapping, unused
from headrace.loading.presets import PRESETS, Layout, choose, detect
from headrace.loading.reading import ReadingOptions, open_source
from headrace.loading.shaping import named, shaped
from headrace.loading.source import Source, Unreadable
from headrace.loading.spool import Spool
from headrace.loading.times import TimeFormat, date_order, unit_of
from schemas.json_events import InvalidEvent, event_from_json

SAMPLED = 5_000
PROOF_ROWS = 2_000_000
"""Rows that are searched for a date which says whether days or months come first."""


class Choices(NamedTuple):
    """What a caller says about a file; empty: what its content tells."""

    map: str = ""
    kind: str = ""
    kinds: str = ""
    preset: str = ""
    attributes: str = ""
    dates: str = ""
    zone: str = ""
    decimal: str = ""
    limit: int = 0
    replace: bool = False
    products: bool = True
    """Whether rows of events that name titles also make products."""
    reading: ReadingOptions = ReadingOptions()


@dataclass(frozen=True)
class Plan:
    """A file that is ready to be read as events."""

    source: Source
    mapping: Mapping
    mapper: RowMapper
    findings: Findings
    choices: Choices


def make_plan(path: Path, choices: Choices) -> Plan:
    """Return how a file is read: format, preset, mapping, marks of numbers and order of dates. Raises BadFile."""
    source = open_source(path, choices.reading)
    preset, layout = _layout(source, choices, path)
    if layout is not None:
        source = shaped(named(source, layout), layout, path)
    sample = _sample(source)
    if not sample:
        raise BadFile(f"{path.name} has a header and no rows" if source.has_header else f"{path.name} has no rows")
    mapping = find_mapping(source, sample, layout, choices.map, choices.kind, choices.kinds, choices.attributes)
    findings = Findings(
        str(path), source.format, dict(source.details), preset, layout.what if layout else "", mapping.guessed,
        mapping.columns, unused(mapping, source), source.row_word,
    )  # fmt: skip
    writing = Writing(_times(source, mapping, sample, choices, findings),
                      _decimal(source, mapping, sample, choices, findings))  # fmt: skip
    return Plan(source, mapping, RowMapper(mapping, writing, choices.replace), findings, choices)


def _layout(source: Source, choices: Choices, path: Path) -> tuple[str, Layout | None]:
    name = choices.preset
    if name in ("none", "off") or (not name and choices.map):
        return "", None
    if not name:
        return detect(source.columns, source.has_header, path.name) or ("", None)
    if name not in PRESETS:
        raise BadFile(f"--preset {name} is unknown; presets are {', '.join(PRESETS)}")
    layout = choose(name, source.columns, source.has_header, path.name)
    if layout is None:
        wanted = " or ".join(", ".join(one.needs or one.names) for one in PRESETS[name])
        raise BadFile(f"--preset {name}: {path.name} has the columns {', '.join(source.columns)}; needed are {wanted}")
    return name, layout


def _sample(source: Source) -> list[dict[str, Any]]:
    with closing(source.rows()) as rows:  # type: ignore[type-var]
        return [row for _, row in islice(rows, SAMPLED) if isinstance(row, dict)]


def _cells(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Iterator[Any]:
    for row in rows:
        for column in columns:
            if not is_empty(row.get(column)):
                yield row[column]
                break


def _decimal(
    source: Source, mapping: Mapping, sample: list[dict[str, Any]], choices: Choices, findings: Findings
) -> str:
    if choices.decimal:
        if choices.decimal not in (",", "."):
            raise BadFile("--decimal is , or .")
        return choices.decimal
    numbers = [cell for name in NUMBERS for cell in _cells(sample, mapping.columns.get(name, ()))]
    mark = decimal_mark(numbers, source.separator)
    if mark == ",":
        findings.details["decimal"] = "comma"
    return mark


def _times(
    source: Source, mapping: Mapping, sample: list[dict[str, Any]], choices: Choices, findings: Findings
) -> TimeFormat:
    """Return how times are written. Raises BadFile where days and months cannot be told apart."""
    zone = TimeFormat().zone
    if choices.zone:
        try:
            zone = ZoneInfo(choices.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise BadFile(f"--zone {choices.zone} is unknown; zones are called like Europe/Berlin") from None
    columns = mapping.columns.get("ts", ())
    cells = list(_cells(sample, columns))
    units = Counter(unit_of(float(cell))[0] for cell in cells if _is_number(cell))
    if units:
        findings.details["times"] = " and ".join(units) + " since 1970"
    if choices.dates:
        if choices.dates not in ("dmy", "mdy", "ymd"):
            raise BadFile("--dates is dmy, mdy or ymd")
        return TimeFormat(choices.dates, zone)  # type: ignore[arg-type]
    order = date_order(cells)
    if order == "open":
        layout = mapping.layout
        order = _proof(source, columns) if layout is None or not layout.dates else layout.dates
        if order == "open":
            example = next(str(cell) for cell in cells if date_order([cell]) == "open")
            raise BadFile(f"times such as {example!r} do not say whether the day or the month comes first: "
                          f"give --dates dmy or --dates mdy")  # fmt: skip
    if order in ("dmy", "mdy"):
        findings.details["dates"] = "day first" if order == "dmy" else "month first"
        return TimeFormat(order, zone)
    return TimeFormat(None, zone)


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return re.fullmatch(r"-?\d{9,20}(\.\d+)?", cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _proof(source: Source, columns: tuple[str, ...]) -> Any:
    """Return the order of dates that the whole file proves."""
    with closing(source.rows()) as rows:  # type: ignore[type-var]
        return date_order(
            cell for _, row in islice(rows, PROOF_ROWS) if isinstance(row, dict) for cell in _cells([row], columns)
        )


def read_all(
    plan: Plan, spool: Spool, now_ms: int, max_future_ms: int | None, progress: Callable[[float], None] | None = None
) -> Findings:
    """Read the file into the spool and return what was found; each event is checked as REST checks it."""
    findings, kept = plan.findings, plan.choices.limit or None
    about: dict[str, dict[str, Any]] = {}
    with closing(plan.source.rows()) as rows:  # type: ignore[type-var]
        for line, row in islice(rows, kept):
            findings.n_rows += 1
            if progress is not None and findings.n_rows % 2_000 == 0:
                progress(plan.source.done())
            if isinstance(row, Unreadable):
                findings.refuse(row.reason, line, row.text)
                continue
            try:
                made = plan.mapper.made_of(row)
                if made.event is not None:
                    _check(made.event, now_ms, max_future_ms)
            except (BadCell, InvalidEvent) as error:
                findings.refuse(str(error), line, _shown(row, plan.mapping))
                continue
            _take(made, row, line, plan, spool, about)
    if plan.choices.products:
        _describe(about, spool, findings)
    findings.n_events = spool.n_events()
    for spooled in islice(spool.events(), FIRST):
        findings.first.append(spooled.event)
    return findings


def _check(event: dict[str, Any], now_ms: int, max_future_ms: int | None) -> None:
    named = "event_id" in event or event["type"] in ("product", "product_gone")
    event_from_json(event if named else event | {"event_id": "-"}, now_ms, max_future_ms)


def _take(
    made: Made, row: dict[str, Any], line: int, plan: Plan, spool: Spool, about: dict[str, dict[str, Any]]
) -> None:
    findings, event = plan.findings, made.event
    if event is None:
        word = next((text_of(row[c]) for c in plan.mapping.columns["kind"] if not is_empty(row.get(c))), SKIP)
        findings.left_aside[word[:40]] += 1
        return
    findings.kinds[event["type"]] += 1
    findings.saw(event.get("ts_ms"))
    for name in made.dropped:
        findings.dropped[event["type"], name] += 1
    if made.about and "item" in event:
        known: dict[str, Any] = {name: event[name] for name in ("category", "brand", "price") if name in event}
        said = about.setdefault(event["item"], {})
        if event.get("ts_ms", 0) >= said.get("ts_ms", 0):
            said.update({"ts_ms": event.get("ts_ms", 0), **known, **made.about})
    spool.add(line, event, made.order)


def _describe(about: dict[str, dict[str, Any]], spool: Spool, findings: Findings) -> None:
    """Add a product for each item whose title the rows of events name."""
    for item, said in about.items():
        spool.add(0, {"type": "product", "item": item, **said})
    findings.n_about = len(about)


def _shown(row: dict[str, Any], mapping: Mapping) -> str:
    """Return the cells of a row that matter, shortened."""
    used = [column for columns in mapping.columns.values() for column in columns if column in row]
    return ", ".join(
        f"{column}={str(row[column])[:40]}" for column in dict.fromkeys(used) if not is_empty(row[column])
    )[:160]
