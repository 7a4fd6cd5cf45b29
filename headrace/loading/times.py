"""Cells become times: numbers of any unit, ISO 8601, dates of exports, with or without a zone."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Literal, NamedTuple

from headrace.loading.errors import BadCell

Order = Literal["dmy", "mdy", "ymd"]
UNITS = ((10**11, "seconds", 1_000.0), (10**14, "milliseconds", 1.0), (10**17, "microseconds", 1e-3))
"""(least number above the unit, name, milliseconds of one). From 2000 on the ranges of the units are disjoint."""
NANOSECONDS = ("nanoseconds", 1e-6)
_PARTS = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})"
    r"(?:(?:[T ]|, ?)+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?)?\s*([AaPp])?\.?(?:[Mm]\.?)?$"
)
_ZONE = re.compile(r"\s*(?:(UTC|GMT|Z)|([+-])(\d{2}):?(\d{2})?)$")
_COMPACT = re.compile(r"(19|20)\d{6}(\d{6})?$")
AMBIGUOUS = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(?:\d{4}|\d{2})(?!\d)")


class TimeFormat(NamedTuple):
    """How a column writes its times."""

    order: Order | None = None
    """Of dates such as 03/04/2024; None: year first, or days first where points separate them."""
    zone: tzinfo = UTC
    """Of times that name none."""


def date_order(cells: Iterable[Any]) -> Literal["dmy", "mdy", "none", "open"]:
    """Return the order that the dates with slashes prove; "open": they fit both; "none": there are none.

    >>> date_order(["12/1/2010 8:26", "12/13/2010 9:00"]), date_order(["01/02/2024"]), date_order(["2024-01-02"])
    ('mdy', 'open', 'none')
    """
    found: Literal["none", "open"] = "none"
    for cell in cells:
        match = AMBIGUOUS.match(cell.strip()) if isinstance(cell, str) else None
        if match is None:
            continue
        if int(match[1]) > 12:
            return "dmy"
        if int(match[3]) > 12:
            return "mdy"
        found = "open"
    return found


def unit_of(number: float) -> tuple[str, float]:
    """Return (name, milliseconds of one) of the unit that makes a number a time after 2000.

    >>> [unit_of(n)[0] for n in (1695262025, 1695262025123, 1695262025123334, 1695262025123334000)]
    ['seconds', 'milliseconds', 'microseconds', 'nanoseconds']
    """
    return next(((name, factor) for end, name, factor in UNITS if number < end), NANOSECONDS)


def milliseconds_of(cell: Any, written: TimeFormat) -> int:
    """Return a cell as milliseconds since 1970. Raises BadCell."""
    if isinstance(cell, datetime):
        return _stamp(cell if cell.tzinfo else cell.replace(tzinfo=written.zone))
    if isinstance(cell, date):
        return _stamp(datetime(cell.year, cell.month, cell.day, tzinfo=written.zone))
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return _of_text(str(cell).strip(), written)
    if isinstance(cell, str) and _COMPACT.match(cell):
        return _compact(cell, written)
    if not abs(number) < 1e20:
        raise BadCell("ts", f"is no time; got {cell!r:.60}")
    factor = unit_of(number)[1]
    if isinstance(cell, str) and cell.isdigit():
        cell = int(cell)
    if isinstance(cell, int):  # a float has too few digits for nanoseconds
        return cell * int(factor) if factor >= 1 else cell // round(1 / factor)
    return round(number * factor)


def _stamp(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _compact(text: str, written: TimeFormat) -> int:
    try:
        moment = datetime.strptime(text, "%Y%m%d" if len(text) == 8 else "%Y%m%d%H%M%S")
    except ValueError:
        raise BadCell("ts", f"is no time; got {text!r:.60}") from None
    return _stamp(moment.replace(tzinfo=written.zone))


def _of_text(text: str, written: TimeFormat) -> int:
    zone = written.zone
    bare = text
    match = _ZONE.search(text)
    if match is not None and (match[1] or ":" in text[: match.start()]):
        bare = text[: match.start()]
        offset = timedelta(hours=int(match[3] or 0), minutes=int(match[4] or 0))
        zone = timezone(-offset if match[2] == "-" else offset)
    try:
        return _stamp(datetime.fromisoformat(bare).replace(tzinfo=zone))
    except ValueError:
        parts = _PARTS.match(bare)
        if parts is None:
            raise BadCell("ts", f"is no time; got {text!r:.60}") from None
    try:
        return _stamp(_of_parts(parts, written.order).replace(tzinfo=zone))
    except ValueError:
        raise BadCell("ts", f"is no time; got {text!r:.60}") from None


def _of_parts(parts: re.Match[str], order: Order | None) -> datetime:
    first, middle, last = int(parts[1]), int(parts[3]), int(parts[4])
    if len(parts[1]) == 4:
        order = "ymd"
    elif order in (None, "ymd"):
        order = "dmy" if parts[2] == "." or first > 12 else "mdy"
    day, month, year = {"dmy": (first, middle, last), "mdy": (middle, first, last), "ymd": (last, middle, first)}[order]
    year += 0 if year > 99 else 2000
    hour = int(parts[5] or 0)
    if parts[9]:
        hour = hour % 12 + (12 if parts[9] in "Pp" else 0)
    micro = int((parts[8] or "").ljust(6, "0")[:6])
    return datetime(year, month, day, hour, int(parts[6] or 0), int(parts[7] or 0), micro)
