"""Rows of several lanes added up in plain Python: what `state.rows.item_merge` must equal."""

import numpy as np

from state.rows.decay import plus
from state.rows.item_rows import MAX_NEIGHBOURS
from state.rows.row_codec import MOST_COUNTED

SUMMED = ("total", "support", "repeat", "kinds", "count")


def add_row(mine, theirs):
    for name in SUMMED:
        mine[name] += theirs[name]
    for h in range(2):
        add_popularity(mine, h, int(theirs["pop_epoch"][h]), theirs["pop"][h])
    n = int(mine["n"])
    merged = dict(zip(mine["neighbour"][:n].tolist(), mine["weight"][:, :n].T.tolist(), strict=True))
    for j in range(int(theirs["n"])):
        other = int(theirs["neighbour"][j])
        weights = zip(merged.get(other, [0, 0, 0]), theirs["weight"][:, j].tolist(), strict=True)
        merged[other] = [a + b for a, b in weights]
    kept = sorted(sorted(merged, key=lambda item: -sum(merged[item]))[:MAX_NEIGHBOURS])
    mine["n"] = len(kept)
    mine["neighbour"][: len(kept)] = kept
    sums = np.array([merged[item] for item in kept]).T.reshape(3, -1)
    mine["weight"][:, : len(kept)] = np.minimum(sums, MOST_COUNTED)


def add_popularity(row, h, epoch, sums):
    newest, other = int(row["pop_epoch"][h]), row["pop"][h]
    if epoch > newest:
        before = int(other[0]) if epoch == newest + 1 else 0
        row["pop_epoch"][h] = epoch
        other[:] = sums[0], plus(int(sums[1]), before)
    elif epoch == newest:
        other[:] = plus(other[0], sums[0]), plus(other[1], sums[1])
    elif epoch == newest - 1:
        other[1] = plus(other[1], sums[0])


def sum_popularity(parts):
    """Popularity (epoch, newest, before) of several lanes added up."""
    newest = max(epoch for epoch, _, _ in parts)
    current = sum(now for epoch, now, _ in parts if epoch == newest)
    before = sum(last for epoch, _, last in parts if epoch == newest)
    return newest, current, before + sum(now for epoch, now, _ in parts if epoch == newest - 1)
