"""How figures of quality are printed: the same names, legend and sentences for `evaluate`, `anchor` and `tune`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from batch.training.comparison import LEAST_JUDGED

LEGEND = {
    "HR": "share of the predictions whose list of 20 holds the target",
    "MRR": "mean of 1 / place of the target, 0 where the list lacks it",
    "NDCG": "the same with 1 / log2(1 + place), for several targets",
    "MAP": "mean of the precision at each target's place",
    "recall": "share of the targets that the list holds",
    "new_only": "targets that are not in the history",
    "cold_users": "histories under 10 events",
    "cold_items": "targets first seen in the last day",
    "coverage": "share of all items that are in some list",
    "miscalibration": "distance of category shares from those of the history; 0 is best",
}
WITH_INTERVAL = ("HR@20", "MRR@20")
"""Figures that are printed with their 95 % interval."""
Gain = tuple[float, float]
"""How much more predictions find, and half of the 95 % interval of that, as shares."""


def compared(gain: Gain, other: str) -> str:
    """Return how one model compares with another.

    >>> compared((0.0123, 0.004), "the live one")
    'better than the live one by 1.23 ± 0.40 points'
    >>> compared((0.001, 0.004), "the live one")
    'no different from the live one (+0.10 ± 0.40 points)'
    """
    more, half = 100 * gain[0], 100 * gain[1]
    if abs(more) <= half or not more:
        return f"no different from {other} ({more:+.2f} ± {half:.2f} points)"
    return f"{'better' if more > 0 else 'worse'} than {other} by {abs(more):.2f} ± {half:.2f} points"


def too_few(n: int) -> str:
    """Return what a verdict on `n` predictions ends with: nothing where there are enough."""
    return "" if n >= LEAST_JUDGED else f" ({n} predictions are too few to tell)"


def _cell(model: Mapping[str, Any], name: str) -> str:
    value, interval = model.get(name), model.get("interval", {}).get(name)
    if value is None:
        return "–"
    return f"{value:.4f}" if interval is None or name not in WITH_INTERVAL else (
        f"{value:.4f} ({interval[0]:.3f}–{interval[1]:.3f})"
    )  # fmt: skip


def table_of(models: Mapping[str, Mapping[str, Any]], names: Iterable[str], title: str) -> Table:
    """Return a table with a row for each model and a column for each figure that one of them has."""
    known = [name for name in names if any(model.get(name) is not None for model in models.values())]
    table = Table("", *(name.replace(".", "\n") for name in known), title=title, title_justify="left")
    for label, model in models.items():
        table.add_row(label, *(_cell(model, name) for name in known))
    return table


def print_legend(out: Console, names: Iterable[str]) -> None:
    """Print what each part of the figures' names means."""
    parts = {part.partition("@")[0] for name in names for part in name.split(".")}
    for name, meaning in LEGEND.items():
        if name in parts:
            out.print(f"{name}: {meaning}", highlight=False)


def day(ms: int) -> str:
    """Return a moment as people write it.

    >>> day(1_569_888_000_000)
    '2019-10-01 00:00'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
