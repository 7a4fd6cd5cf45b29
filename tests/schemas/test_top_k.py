import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.compiled.top_k import largest, largest_first
from serving.scoring.scorer import likeliest_first

VALUES = st.sampled_from([0.0, 1.0, 5e-324, 1e300, np.inf]) | st.floats(0, 2)


@given(st.lists(st.integers(0, 5), max_size=30) | st.lists(VALUES, max_size=60), st.integers(1, 35))
def test_both_choose_the_largest_and_of_equal_ones_the_first(values, k):
    scores = np.array(values, np.float64)
    expected = np.argsort(-scores, kind="stable")[:k]
    assert np.array_equal(largest_first(scores, k), expected)
    out = np.empty(k, np.int64)
    assert sorted(out[: largest(scores, k, out)].tolist()) == sorted(expected.tolist())


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.25 + 2**-50, 0.5, 1e-300]) | st.floats(0, 1), st.integers(1, 9)))
)
def test_candidates_stand_in_the_order_of_their_probability_and_equal_ones_of_their_ids(found):
    probability = np.array([p for p, _ in found], np.float64)
    items = np.array([100 * item + at for at, (_, item) in enumerate(found)], np.uint64)
    wanted = sorted(range(len(found)), key=lambda at: (-probability[at], items[at]))
    order = np.empty(len(found), np.int64)
    likeliest_first(probability, items, np.empty_like(order), order)
    assert order.tolist() == wanted
