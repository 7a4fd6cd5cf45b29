"""`headrace load`: a table becomes events on the log."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from flows.log.contract import Log, LogUnavailable, Message
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.json_events import InvalidEvent, encode, event_from_json
from schemas.registry import SchemaRegistry

CHUNK = 2_000
SECONDS_BELOW = 10**11  # a whole number this small counts seconds, a larger one milliseconds
TEXTS = ("user", "item", "session", "category", "brand", "country", "order_id", "query", "event_id")


class BadMapping(Exception):
    """The value of --map or --kinds cannot be used."""


def _pairs(text: str, option: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, text.split(",")):
        name, found, value = part.partition("=")
        if not found or not name or not value:
            raise BadMapping(f"{option}: {part!r} is not NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _read(file: Path, columns: dict[str, str], limit: int) -> pl.DataFrame:
    if file.suffix == ".parquet":
        table = pl.scan_parquet(file)
    elif file.suffix == ".csv":
        table = pl.scan_csv(file, infer_schema_length=10_000)
    else:
        raise BadMapping(f"{file} is neither .csv nor .parquet")
    try:
        return _chosen(table, file, columns, limit)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadMapping(f"{file} cannot be read as {file.suffix[1:]}: {str(error).splitlines()[0]}") from None


def _chosen(table: pl.LazyFrame, file: Path, columns: dict[str, str], limit: int) -> pl.DataFrame:
    """Return the mapped columns in order of time, `ts` in milliseconds, null where it cannot be read as a time."""
    there = table.collect_schema().names()
    for name, column in columns.items():
        if column not in there:
            raise BadMapping(f"--map: {name}={column}, but {file.name} has the columns {', '.join(there)}")
    if "ts" not in columns:
        raise BadMapping("--map: ts=COLUMN is needed: events are loaded in time order")
    chosen = table.select([pl.col(column).alias(name) for name, column in columns.items()])
    frame = (chosen.head(limit) if limit else chosen).collect()
    frame = frame.with_columns(_milliseconds(frame["ts"]))
    return frame.with_row_index("row").sort("ts", maintain_order=True)


def _milliseconds(ts: pl.Series) -> pl.Series:
    """Return times as milliseconds, whether they are times, numbers, or texts of either kind."""
    if ts.dtype == pl.String:
        number = _milliseconds(ts.cast(pl.Float64, strict=False))
        dates = ts.set(number.is_not_null(), None)
        return number.fill_null(_milliseconds(dates.str.to_datetime(strict=False, time_zone="UTC")))
    if ts.dtype.is_temporal():
        return ts.dt.epoch("ms")
    number = ts.cast(pl.Int64, strict=False)
    seconds = number < SECONDS_BELOW
    return pl.select(pl.when(seconds).then(number * 1000).otherwise(number).alias(ts.name)).to_series()


def _events(frame: pl.DataFrame, kind: str, kinds: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows as events; one without an id has one of its content, and of how many rows before are the same."""
    at, same = None, Counter[bytes]()
    for row in frame.iter_rows(named=True):
        event = {key: value for key, value in row.items() if value is not None and key not in ("row", "ts", "kind")}
        for key in TEXTS:
            if key in event:
                event[key] = str(event[key])
        given = row.get("kind")
        event["type"] = kind if given is None else kinds.get(str(given), str(given))
        if row["ts"] is not None:
            event["ts_ms"] = row["ts"]
        if row["ts"] != at:  # rows are in order of time, so those that are the same are together
            at, same = row["ts"], Counter()
        if "event_id" not in event:
            content = orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS)
            event["event_id"] = hashlib.blake2b(b"%d:%b" % (same[content], content), digest_size=16).hexdigest()
            same[content] += 1
        yield event


def _message(event: dict[str, Any], registry: SchemaRegistry, max_future_ms: int | None) -> Message:
    if "ts_ms" not in event:
        raise InvalidEvent("ts", "cannot be read as a time")
    topic, record, key = event_from_json(event, time.time_ns() // 1_000_000, max_future_ms)
    return Message(topic, key, encode(topic, record, registry), event["ts_ms"])


def append_all(
    log: Log, events: Iterator[dict[str, Any]], total: int, registry: SchemaRegistry, title: str,
    max_future_ms: int | None = None,
) -> tuple[int, Counter[str]]:  # fmt: skip
    """Append the events in chunks with a progress bar; return (loaded, refused by reason)."""
    refused: Counter[str] = Counter()
    waiting: list[Message] = []
    loaded, began = 0, time.perf_counter()
    with progress_bar("events") as bar:
        task = bar.add_task(title, total=total, rate=0.0)
        for n, event in enumerate(events, 1):
            try:
                waiting.append(_message(event, registry, max_future_ms))
            except InvalidEvent as error:
                refused[str(error)[:120]] += 1
            if len(waiting) >= CHUNK or n == total:
                log.append(waiting)
                loaded += len(waiting)
                waiting = []
                bar.update(task, completed=n, rate=n / (time.perf_counter() - began))
        log.append(waiting)
    return loaded + len(waiting), refused


def run(
    settings: Settings, file: Path, mapping: str, kind: str, kinds: str, dry_run: bool, limit: int, json: bool
) -> int:
    """Load a table, or show what would be loaded; return the exit code."""
    try:
        kind_names = _pairs(kinds, "--kinds")
        if not file.exists():
            raise BadMapping(f"{file} does not exist")
        frame = _read(file, _pairs(mapping, "--map"), limit)
    except BadMapping as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    registry = open_registry(settings)
    events = _events(frame, kind, kind_names)
    max_future_ms = int(settings.max_future_s * 1000)
    if dry_run:
        return _show(events, registry, max_future_ms, json)
    try:
        log = open_log(settings.log_address, config=settings.kafka_config)
        loaded, refused = append_all(log, events, len(frame), registry, file.name, max_future_ms)
        log.close()
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"loaded": loaded, "refused": dict(refused)})
    else:
        err.print(f"{loaded:,} events loaded, {sum(refused.values()):,} refused")
        for reason, n in refused.most_common(10):
            err.print(f"  {n:,} × {reason}", markup=False)
    return OK if loaded or not refused else FAILED


def _show(events: Iterator[dict[str, Any]], registry: SchemaRegistry, max_future_ms: int, json: bool) -> int:
    first: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    for event in events:
        try:
            _message(event, registry, max_future_ms)
            if len(first) < 10:
                first.append(event)
        except InvalidEvent as error:
            refused[str(error)[:120]] += 1
    if json:
        print_json({"first": first, "refused": dict(refused)})
    else:
        table = Table("type", "user", "item", "ts_ms", "rest", title="the first ten events; nothing was loaded")
        for event in first:
            rest = {k: v for k, v in event.items() if k not in ("type", "user", "item", "ts_ms")}
            table.add_row(*(str(event.get(k, "")) for k in ("type", "user", "item", "ts_ms")), str(rest))
        Console().print(table)
        for reason, n in refused.most_common(10):
            err.print(f"cannot be read: {n:,} × {reason}", markup=False)
    return OK


def command(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    map: Annotated[str, typer.Option(help="Our fields from its columns: user=visitorid,item=itemid,ts=timestamp,…")],
    kind: Annotated[str, typer.Option(help="Type of every event, where no column tells (kind=COLUMN).")] = "view",
    kinds: Annotated[str, typer.Option(help="Types by the column's values: transaction=purchase,addtocart=…")] = "",
    dry_run: Annotated[
        bool, typer.Option(help="Show the first ten events and what cannot be read; load nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Load only so many rows; 0: all.")] = 0,
    json: Json = False,
) -> None:
    """Turn a table into events on the log, in time order. Loading a file twice adds nothing to the rows."""
    raise typer.Exit(run(read_settings(), file, map, kind, kinds, dry_run, limit, json))
