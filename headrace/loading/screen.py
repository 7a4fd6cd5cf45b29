"""What was understood of a file, for a person."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.loading.findings import Findings

MOST_REASONS = 10
MOST_UNUSED = 12


def _day(ts_ms: int | None) -> str:
    return "–" if ts_ms is None else f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _n(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} × {name}" for name, n in sorted(counts.items(), key=lambda one: -one[1]))


def show(findings: Findings, out: Console) -> None:
    """Print format, columns, counts, times, first events and what cannot be read."""
    details = ", ".join(f"{name} {text}" for name, text in findings.details.items())
    out.print(f"{findings.file}: {findings.format}{f' ({details})' if details else ''}", markup=False, soft_wrap=True)
    if findings.preset:
        out.print(f"recognised: {findings.what} (--preset {findings.preset})", markup=False, soft_wrap=True)
    elif findings.guessed:
        out.print("fields guessed from the names of the columns; --map says otherwise", markup=False)
    out.print(_columns(findings))
    if findings.unused:
        rest = f" and {len(findings.unused) - MOST_UNUSED} more" if len(findings.unused) > MOST_UNUSED else ""
        out.print(f"not used: {', '.join(findings.unused[:MOST_UNUSED])}{rest}", markup=False, soft_wrap=True)
    _print_counts(findings, out)
    if findings.first:
        out.print(_first(findings.first))
    _print_refused(findings, out)


def _columns(findings: Findings) -> Table:
    table = Table("field", "column")
    for name, columns in findings.columns.items():
        table.add_row(name, Text(", else ".join(columns)))
    return table


def _print_counts(findings: Findings, out: Console) -> None:
    lines = [f"{_n(findings.n_rows, 'row')}: {_counts(dict(findings.kinds)) or 'none can be read'}"]
    n_lines = sum(findings.kinds.values())
    if findings.n_events - findings.n_about < n_lines:
        made = _n(findings.n_events - findings.n_about, "event")
        lines.append(f"{n_lines:,} of them make {made}: rows of one order are one purchase")
    if findings.n_about:
        lines.append(
            f"{_n(findings.n_about, 'product')} with the titles that the rows name (--no-products: without them)"
        )
    if findings.first_ms is not None:
        lines.append(f"from {_day(findings.first_ms)} to {_day(findings.last_ms)} UTC")
    if findings.left_aside:
        lines.append(f"left aside: {_counts(dict(findings.left_aside.most_common(MOST_REASONS)))}")
    for (kind, name), n in findings.dropped.most_common(MOST_REASONS):
        lines.append(f"{name} is no field of a {kind}: left out of {_n(n, 'row')}")
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _first(events: list[dict[str, Any]]) -> Table:
    table = Table("type", "visitor", "item", "time", "rest", title="the first events")
    for event in events:
        shown = ("type", "user", "session", "item", "ts_ms", "event_id", "lines")
        rest = ", ".join(_written(name, value) for name, value in event.items() if name not in shown)
        visitor = event.get("user") or event.get("session") or ""
        item = event.get("item") or ", ".join(_line(line) for line in event.get("lines", []))
        table.add_row(event["type"], Text(visitor), Text(item), _day(event.get("ts_ms")), Text(rest))
    return table


def _line(line: dict[str, Any]) -> str:
    return line["item"] if line.get("quantity", 1) == 1 else f"{line['item']} × {line['quantity']:g}"


def _written(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{inner}={one}" for inner, one in value.items())
    return f"{name}={'cleared' if value is None else value}"


def _print_refused(findings: Findings, out: Console) -> None:
    if not findings.refused:
        return
    out.print(f"cannot be read: {_n(findings.n_refused, 'row')}", markup=False)
    reasons = sorted(findings.refused.items(), key=lambda one: -one[1].n)
    for reason, one in reasons[:MOST_REASONS]:
        where = f", first in {findings.row_word} {one.line}" if one.line else ""
        example = f": {one.example}" if one.example else ""
        out.print(f"  {one.n:,} × {reason}{where}{example}", markup=False, soft_wrap=True)
