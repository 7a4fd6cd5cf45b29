"""The window of event ids against its definition: a list of all ids, of which the last half or more are known."""

import random

import numpy as np
import pytest

from flows.fold.dedupe import SEGMENT, DedupeWindow

WINDOW, HALF = 2 * SEGMENT, SEGMENT


class Definition:
    """Ids in the order they were accepted; known are those of this half of the window and of the one before."""

    def __init__(self):
        self.accepted = []

    def knows(self, event_id):
        first = max(0, len(self.accepted) // HALF - 1) * HALF
        return event_id in self.accepted[first:]

    def accept(self, ids):
        fresh = []
        for event_id in ids:
            fresh.append(not self.knows(event_id))
            if fresh[-1]:
                self.accepted.append(event_id)
        return fresh


def accepted(window, ids):
    messages = np.arange(len(ids), dtype=np.int32)
    return window.accept(messages, np.array(ids, np.uint64)).tolist()


def restored(window, rows):
    """Return a window made anew from the rows that were written."""
    other = DedupeWindow(WINDOW)
    other.restore(window.count, [rows.get(segment) for segment in window.segments_of(window.count)])
    return other


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_window_accepts_what_its_definition_does_and_a_restored_one_too(seed):
    rng, window, definition, rows = random.Random(seed), DedupeWindow(WINDOW), Definition(), {}
    everything = []
    for size in (1, 500, 522, 1, 1, 700, 323, 1, 2000, 1500, 48):
        ids = [rng.choice(everything) if everything and rng.random() < 0.3 else rng.getrandbits(64) or 1
               for _ in range(size)]  # fmt: skip
        everything += ids
        before = window.count
        assert accepted(window, ids) == definition.accept(ids)
        assert window.count == len(definition.accepted)
        rows |= window.segments_since(before)
        for probe in rng.sample(everything, min(len(everything), 8)):
            assert accepted(restored(window, rows), [probe]) == [not definition.knows(probe)]
        window = restored(window, rows)  # as after a restart
    assert len(definition.accepted) > 2 * WINDOW


@pytest.mark.parametrize("n", [HALF - 1, HALF, HALF + 1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * HALF])
def test_the_last_half_is_known_and_what_came_before_this_half_and_the_last_is_not(n):
    ids = list(range(1, n + 1))
    window = DedupeWindow(WINDOW)
    assert all(accepted(window, ids))
    first = max(0, n // HALF - 1) * HALF
    other = restored(window, window.segments_since(0))
    for one in (window, other):
        assert not any(accepted(one, ids[first:]))
    assert all(accepted(other, ids[:1])) == (first > 0)


def test_only_segments_that_changed_are_written_and_they_make_a_ring():
    window = DedupeWindow(WINDOW)
    accepted(window, list(range(1, 11)))
    assert {number: len(row) for number, row in window.segments_since(0).items()} == {0: 8 * 11}
    accepted(window, list(range(11, SEGMENT + 2)))
    assert {number: len(row) for number, row in window.segments_since(10).items()} == {0: 8 * (SEGMENT + 1), 1: 16}
    accepted(window, list(range(SEGMENT + 2, 2 * SEGMENT + 3)))
    (row,) = [row for number, row in window.segments_since(2 * SEGMENT).items() if number == 0]
    assert np.frombuffer(row, np.uint64).tolist() == [2 * SEGMENT, 2 * SEGMENT + 1, 2 * SEGMENT + 2]


def test_lines_of_one_message_share_its_fate():
    window = DedupeWindow(WINDOW)
    messages, ids = np.array([0, 0, 1, 2, 2], np.int32), np.array([7, 7, 8, 7, 7], np.uint64)
    assert window.accept(messages, ids).tolist() == [True, True, True, False, False]
    assert window.count == 2


def test_a_segment_that_is_missing_is_no_window():
    window = DedupeWindow(WINDOW)
    accepted(window, list(range(1, SEGMENT + 5)))
    rows = window.segments_since(0)
    for wrong in ({}, {0: rows[0]}, {0: rows[1], 1: rows[0]}):
        with pytest.raises(ValueError, match="rebuild the lane by a replay"):
            restored(window, wrong)


@pytest.mark.parametrize("window", [0, SEGMENT, 2 * SEGMENT + 1, 3 * SEGMENT])
def test_a_window_that_cannot_be_is_refused(window):
    with pytest.raises(ValueError, match=f"must be a multiple of {2 * SEGMENT}"):
        DedupeWindow(window)
