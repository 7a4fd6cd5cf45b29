import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.largest import largest, largest_first


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 35))
def test_both_choose_the_largest_and_of_equal_ones_the_first(values, k):
    scores = np.array(values, np.float64)
    expected = np.argsort(-scores, kind="stable")[:k]
    assert np.array_equal(largest_first(scores, k), expected)
    out = np.empty(k, np.int64)
    assert sorted(out[: largest(scores, k, out)].tolist()) == sorted(expected.tolist())
