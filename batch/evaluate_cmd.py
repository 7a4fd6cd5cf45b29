"""`headrace evaluate`: tables in, metrics out, as a table, JSON or an HTML page with plots."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from batch.evaluate import Options, evaluate
from batch.report import write_report
from batch.shop import Pairs, columns_of, pairs_of, sessions_by_end
from flows.process import lane_settings
from schemas.events import Columns, Kind
from schemas.ids import hash_id
from serving.cli.console import FAILED, OK, WRONG_USAGE, err, print_json
from serving.mixture import DEFAULT, MixtureParams
from state.settings import Settings

SHOWN = ("HR@20", "MRR@20", "NDCG@20", "recall@20", "MAP@20", "new_only.HR@20", "new_only.MRR@20", "coverage@20")
KINDS = {"view": Kind.VIEW, "click": Kind.CLICK, "add_to_cart": Kind.ADD_TO_CART, "cart": Kind.ADD_TO_CART,
         "purchase": Kind.PURCHASE, "buy": Kind.PURCHASE, "wishlist": Kind.WISHLIST}  # fmt: skip


class WrongTable(Exception):
    """A table that cannot be evaluated; the message says why."""


def _read(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    try:
        table = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WrongTable(f"{path} cannot be read: {error}") from None
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise WrongTable(f"{path} has no column {missing[0]!r}; needed are {', '.join(needed)}")
    return table


def _hashes(values: pl.Series) -> np.ndarray[Any, np.dtype[np.uint64]]:
    texts = values.cast(pl.String)
    distinct = texts.unique().to_list()
    known = {text: hash_id(text) for text in distinct if text is not None}
    return np.array([known.get(text, 0) for text in texts.to_list()], np.uint64)


def read_events(path: Path) -> Columns:
    """Return the events of a table with `user`, `item`, `ts_ms` and perhaps `kind` and `session`, by time."""
    table = _read(path, ("user", "item", "ts_ms")).sort("ts_ms", maintain_order=True)
    kind = None
    if "kind" in table.columns:
        names = table["kind"].cast(pl.String).to_list()
        unknown = sorted({name for name in names if name not in KINDS})
        if unknown:
            raise WrongTable(f"{path}: kind {unknown[0]!r} is none of {', '.join(KINDS)}")
        kind = np.array([KINDS[name] for name in names], np.uint8)
    subject = "session" if "session" in table.columns else "user"
    events = columns_of(_hashes(table[subject]), _hashes(table["item"]), table["ts_ms"].cast(pl.Int64).to_numpy(), kind)
    if not len(events):
        raise WrongTable(f"{path} holds no events")
    return events


def read_pairs(path: Path) -> Pairs:
    """Return the predictions of a table with `history` (list, oldest first) and `target`."""
    table = _read(path, ("history", "target"))
    history = table["history"].list.eval(pl.element().cast(pl.String))
    target = _hashes(table["target"])
    known: dict[str, int] = {}
    histories = []
    for items in history.to_list():
        for item in items:
            if item not in known:
                known[item] = hash_id(item)
        histories.append(np.array([known[item] for item in items], np.uint64))
    if not histories or any(not len(one) for one in histories):
        raise WrongTable(f"{path}: every history needs at least one item")
    return Pairs(histories, target)


def split_by_time(events: Columns, share: float, gap_ms: int) -> tuple[Columns, Pairs]:
    """Return (training events, predictions): sessions that ended in the first `share` of them, and the rest."""
    session = sessions_by_end(events["user"], events["ts_ms"], gap_ms)
    cut = share * (int(session.max()) + 1)
    later = events[session >= cut]
    first_ms = int(later["ts_ms"].min()) if len(later) else 0
    train = events[(session < cut) & (events["ts_ms"] < first_ms)] if len(later) else events
    known = np.isin(later["item"], np.unique(train["item"]))
    return train, pairs_of(session[session >= cut][known], later["item"][known])


def with_overrides(params: MixtureParams, overrides: list[str]) -> MixtureParams:
    """Return the numbers with NAME=VALUE or NAME.INDEX=VALUE replaced, e.g. `power=1`, `theta.3=1.2`."""
    for text in overrides:
        name, _, value = text.partition("=")
        field, _, index = name.partition(".")
        if field not in MixtureParams._fields:
            raise WrongTable(f"--set {name}: scoring has {', '.join(MixtureParams._fields)}")
        try:
            number = float(value)
            if field == "power":
                params = params._replace(power=number)
            else:
                changed = np.array(getattr(params, field))
                changed.flat[int(index)] = number
                params = params._replace(**{field: changed})  # type: ignore[arg-type]
        except (ValueError, IndexError):
            raise WrongTable(f"--set {text}: give NAME.INDEX=NUMBER") from None
    return params


def run(
    settings: Settings, train: Path | None, pairs: Path | None, events: Path | None, share: float, repeat: str,
    mode: str, fit: bool, ranker: str, diversity: float, overrides: list[str], baselines: bool,
    html: Path | None, json: bool,
) -> int:  # fmt: skip
    """Evaluate and print; return the exit code."""
    try:
        if repeat not in ("allow", "demote", "exclude") or mode not in ("frozen", "prequential"):
            raise WrongTable("--repeat is allow, demote or exclude; --mode is frozen or prequential")
        if ranker not in ("auto", "off"):
            raise WrongTable("--ranker is auto or off")
        if not 0 <= diversity <= 1:
            raise WrongTable("--diversity is between 0 and 1")
        lane = lane_settings(settings)
        if train is not None and pairs is not None:
            learned, asked = read_events(train), read_pairs(pairs)
        elif events is not None:
            learned, asked = split_by_time(read_events(events), share, lane.session_gap_ms)
        else:
            raise WrongTable("give --train and --pairs, or --events")
        if not len(asked.target):
            raise WrongTable("there is nothing to predict after the split")
        options = Options(repeat, mode, fit, ranker, diversity, True, with_overrides(DEFAULT, overrides), lane)
        options = options if baselines else replace(options, baselines=())
    except WrongTable as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    with err.status(f"{len(learned):,} events to learn, {len(asked.target):,} predictions to make"):
        found = evaluate(learned, asked, options)
    if html is not None:
        write_report(html, found)
        err.print(f"report: {html}")
    if json:
        print_json(found)
    else:
        _show(found)
    return OK if found["n"] else FAILED


def _show(found: dict[str, Any]) -> None:
    table = Table("figure", "headrace", *found["baselines"], title=f"{found['n']:,} predictions, {found['mode']}")
    for name in SHOWN:
        values = [found[name], *(baseline[name] for baseline in found["baselines"].values())]
        table.add_row(name, *("–" if value is None else f"{value:.4f}" for value in values))
    Console().print(table)
    low, high = found["interval"]["HR@20"]
    err.print(f"HR@20 95 % interval {low:.4f} to {high:.4f}; {found['ms_per_prediction']:.3f} ms a prediction; "
              f"{found['train_events_per_s']:,} training events/s")  # fmt: skip
