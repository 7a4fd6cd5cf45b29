"""Where the fold of a batch's events has to pause, for products and erasures take effect in their places.

Products are rare among events, and a change of one matters only to the events of its item that lie in the same batch.
So the events are folded in few runs, whatever changes come between them.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flows.fold.item_table import ItemTable
from flows.fold.products import ItemChange
from schemas.events import Columns

FIRST = -1


class Pause(NamedTuple):
    """Before the events from `message` on: a user is erased, or the scores so far are listed; then items change."""

    message: int
    erased: int | None
    changes: list[ItemChange]


def pauses(
    events: Columns, changes: Sequence[ItemChange], erasures: Sequence[tuple[int, int]], items: ItemTable
) -> list[Pause]:
    """Return the pauses of a batch, the first before all events.

    `changes` and `erasures` (message, user): in order; the items that change are cached. A change goes to the last
    pause where no event of its item lies between them, else to one of its own.
    """
    found = [Pause(FIRST, None, [])]
    seen, row_of = _messages_of(events, changes), _row_values(changes, items)
    steps: list[tuple[int, int | None, ItemChange | None]] = [(change.message, None, change) for change in changes]
    steps += [(message, user, None) for message, user in erasures]
    for message, user, change in sorted(steps, key=lambda step: step[0]):
        if change is None:
            found.append(Pause(message, user, []))
            continue
        last, own = found[-1], seen[change.item]
        # An erasure may take back events of any item.
        acted = last.erased is not None or bisect_left(own, last.message) < bisect_left(own, message)
        flags, category, brand = row_of[change.item]
        if acted and change.changes_events(flags, category, brand):
            found.append(Pause(message, None, []))
        found[-1].changes.append(change)
        row_of[change.item] = (flags | change.flags, *(change.facts[:2] if change.facts else (category, brand)))
    return found


def _messages_of(events: Columns, changes: Sequence[ItemChange]) -> defaultdict[int, list[int]]:
    """Return the messages of the events of each item that changes, ascending."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    if changes and len(events):
        ours = events[np.isin(events["item"], np.array([change.item for change in changes], np.uint64))]
        for item, message in zip(ours["item"].tolist(), ours["message"].tolist(), strict=True):
            found[item].append(message)
    return found


def _row_values(changes: Sequence[ItemChange], items: ItemTable) -> dict[int, tuple[int, int, int]]:
    """Return flags, category and brand of each item that changes."""
    if not changes:
        return {}
    ids = list({change.item for change in changes})
    rows = items.rows[items.slots.find(np.array(ids, np.uint64))]
    columns = (rows[name].tolist() for name in ("flags", "category", "brand"))
    return dict(zip(ids, zip(*columns, strict=True), strict=True))
