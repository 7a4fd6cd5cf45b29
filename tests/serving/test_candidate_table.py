import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.scoring.candidate_table import MAX_CANDIDATES, MAX_EPOCHS, accumulate, begin, new_candidate_table


@numba.njit
def searched(found, items, score, indexes):
    begin(found)
    n = 0
    for k in range(len(items)):
        indexes[k], n = accumulate(found, n, items[k], score[k])
    return n


# Of 64 bits the lowest 12 say where an item belongs, so that many of these want the same place.
ITEMS = st.integers(1, 6) | st.builds(
    lambda low, high: high << 40 | low, st.sampled_from([0, 1, 4095]), st.integers(0, 9)
)
FOUND = new_candidate_table()


@given(st.lists(st.tuples(ITEMS, st.floats(0, 10)), max_size=200), st.booleans())
def test_items_are_found_once_and_their_worth_adds_up(what, at_the_end):
    if at_the_end:  # the numbers of searches begin anew
        FOUND.epoch[0] = MAX_EPOCHS - 1
    items, score = np.array([item for item, _ in what], np.uint64), np.array([w for _, w in what], np.float64)
    indexes, expected = np.zeros(len(what), np.int64), {}
    n = searched(FOUND, items, score, indexes)
    for item, more in what:
        expected[item] = expected.get(item, 0.0) + more
    assert FOUND.item[:n].tolist() == list(expected)
    assert FOUND.score[:n].tolist() == list(expected.values())
    assert [list(expected).index(item) for item, _ in what] == indexes.tolist()


def test_there_is_room_for_more_than_half_of_the_table():
    items = np.random.default_rng(1).integers(1, 2**63, 3 * MAX_CANDIDATES // 4).astype(np.uint64)
    indexes = np.zeros(len(items), np.int64)
    assert searched(FOUND, items, np.ones(len(items)), indexes) == len(np.unique(items))
    assert np.array_equal(FOUND.item[indexes], items)
