"""Tables for an evaluation: events, predictions, and how one table becomes both."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batch.evaluation.groups import Categories
from batch.training.simulated_shop import Pairs, columns_of, pairs_of, sessions_by_end
from schemas.events import FIRST_NEGATIVE_KIND, Columns, Kind
from schemas.ids import hash_id

KINDS = {"view": Kind.VIEW, "click": Kind.CLICK, "add_to_cart": Kind.ADD_TO_CART, "cart": Kind.ADD_TO_CART,
         "purchase": Kind.PURCHASE, "buy": Kind.PURCHASE, "wishlist": Kind.WISHLIST}  # fmt: skip

Ids = np.ndarray[Any, np.dtype[np.uint64]]
EVENT_COLUMNS = ("user", "item", "ts_ms")


class WrongTable(Exception):
    """A table that cannot be evaluated; the message has the reason."""


def _read(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    try:
        table = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WrongTable(f"{path} cannot be read: {error}") from None
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise WrongTable(f"{path} has no column {missing[0]!r}; needed are {', '.join(needed)}")
    return table


def has_columns(path: Path) -> bool:
    """Return whether a file is a table with the columns that `read_events` needs."""
    try:
        names = (pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_parquet(path)).collect_schema().names()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return set(EVENT_COLUMNS) <= set(names)


def _hashes(values: pl.Series) -> Ids:
    texts = values.cast(pl.String)
    known = {text: hash_id(text) for text in texts.unique().to_list() if text is not None}
    return np.array([known.get(text, 0) for text in texts.to_list()], np.uint64)


def read_events(path: Path, by_session: bool = True) -> tuple[Columns, Categories]:
    """Return (the events of a table by time, the categories of its items).

    Columns `user`, `item`, `ts_ms`, perhaps `kind`, `category` (a path like `toys/outdoor`) and `session`,
    which is taken for the user with `by_session`.
    """
    table = _read(path, EVENT_COLUMNS).sort("ts_ms", maintain_order=True)
    kind = None
    if "kind" in table.columns:
        names = table["kind"].cast(pl.String).to_list()
        unknown = sorted({str(name) for name in names if name not in KINDS})
        if unknown:
            raise WrongTable(f"{path}: kind {unknown[0]!r} is none of {', '.join(KINDS)}")
        kind = np.array([KINDS[name] for name in names], np.uint8)
    subject = "session" if by_session and "session" in table.columns else "user"
    item = _hashes(table["item"])
    events = columns_of(_hashes(table[subject]), item, table["ts_ms"].cast(pl.Int64).to_numpy(), kind)
    if not len(events):
        raise WrongTable(f"{path} holds no events")
    categories = {}
    if "category" in table.columns:
        named = zip(item.tolist(), table["category"].cast(pl.String).to_list(), strict=True)
        categories = {key: name for key, name in named if name}
    return events, categories


def read_pairs(path: Path) -> Pairs:
    """Return the predictions of a table with `history` (list, oldest first) and `target` (an item, or a list)."""
    table = _read(path, ("history", "target"))
    histories = _lists(table["history"])
    if not histories or any(not len(one) for one in histories):
        raise WrongTable(f"{path}: every history needs at least one item")
    if not isinstance(table["target"].dtype, pl.List):
        return Pairs(histories, _hashes(table["target"]))
    baskets = _lists(table["target"])
    if any(not len(one) for one in baskets):
        raise WrongTable(f"{path}: every target needs at least one item")
    return Pairs(histories, np.array([basket[0] for basket in baskets], np.uint64), baskets)


def _lists(lists: pl.Series) -> list[Ids]:
    if not isinstance(lists.dtype, pl.List):
        raise WrongTable(f"the column {lists.name!r} must hold lists of items")
    lists = lists.list.drop_nulls()
    flat, lengths = _hashes(lists.explode()), lists.list.len().to_numpy()
    flat = flat[flat != 0]  # an empty list becomes a null
    return np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []


def split_by_time(events: Columns, share: float, gap_ms: int) -> tuple[Columns, Pairs]:
    """Return (training events, predictions): sessions that ended in the first `share` of them, and the rest."""
    session = sessions_by_end(events["user"], events["ts_ms"], gap_ms)
    cut = share * (int(session.max()) + 1)
    later = events[session >= cut]
    first_ms = int(later["ts_ms"].min()) if len(later) else 0
    train = events[(session < cut) & (events["ts_ms"] < first_ms)] if len(later) else events
    known = np.isin(later["item"], np.unique(train["item"])) & (later["kind"] < FIRST_NEGATIVE_KIND)
    return train, pairs_of(session[session >= cut][known], later["item"][known])


def split_baskets(events: Columns, share: float, gap_ms: int) -> tuple[Columns, Pairs]:
    """Return (events of the first `share` of the time, one prediction for each user who comes back after it).

    The history is everything the user did before; the targets are the known items of the first session after.
    Where all events are purchases, the server's rule for returning customers applies (`candidates.repurchase`).
    """
    events = events[(events["item"] != 0) & (events["kind"] < FIRST_NEGATIVE_KIND)]
    cut_ms = int(np.quantile(events["ts_ms"], share)) if len(events) else 0
    train, later = events[events["ts_ms"] <= cut_ms], events[events["ts_ms"] > cut_ms]
    past = _by_user(train)
    known = np.unique(train["item"])
    histories, baskets, times = [], [], []
    for user, own in _by_user(later).items():
        stays = np.cumsum(np.diff(own["ts_ms"], prepend=own["ts_ms"][0]) > gap_ms) == 0
        basket = np.array(list(dict.fromkeys(own["item"][stays].tolist())), np.uint64)
        basket = basket[np.isin(basket, known)]
        if user in past and len(basket):
            histories.append(past[user]["item"].copy())
            times.append(past[user]["ts_ms"].copy())
            baskets.append(basket)
    bought = bool((train["kind"] == Kind.PURCHASE).all())
    first = np.array([basket[0] for basket in baskets], np.uint64)
    return train, Pairs(histories, first, baskets, times if bought else None)


def _by_user(events: Columns) -> dict[int, Columns]:
    """Return each user's events by time."""
    if not len(events):
        return {}
    ordered = events[np.lexsort((events["ts_ms"], events["user"]))]
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered["user"])) + 1)
    return {int(part["user"][0]): part for part in parts}
