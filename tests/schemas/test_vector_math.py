import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.compiled.vector_math import LARGEST, exponentials, logarithms, power_of_2

POSITIVE = st.floats(2.3e-308, 1e308) | st.floats(0.5, 2) | st.builds(lambda x: 1 + x, st.floats(-1e-6, 1e-6))
EXPONENTS = st.floats(-LARGEST, LARGEST) | st.floats(-2, 2) | st.floats(-1e-9, 1e-9)


def within(found, exact):
    """Say whether numbers are at most two units in the last place off."""
    return all(abs(a - b) <= 2 * math.ulp(b) for a, b in zip(found.tolist(), exact, strict=True))


@given(st.lists(POSITIVE, max_size=40))
@example([1.0, 0.5**0.5, math.nextafter(0.5**0.5, 0), 2.0, math.e])
def test_logarithms_are_those_of_the_library(values):
    found = np.array([*values, -1.0])
    logarithms(found, len(values))
    assert within(found[:-1], [math.log(value) for value in values])
    assert found[-1] == -1.0


@given(st.lists(EXPONENTS, max_size=40))
@example([0.0, math.log(2) / 2, -math.log(2) / 2, LARGEST, -LARGEST])
def test_exponentials_are_those_of_the_library(values):
    found = np.array([*values, -1.0])
    exponentials(found, len(values))
    assert within(found[:-1], [math.exp(value) for value in values])
    assert found[-1] == -1.0


def test_exponents_beyond_the_largest_are_that():
    found = np.array([800.0, -800.0, math.inf, -math.inf])
    exponentials(found, 4)
    assert within(found, [math.exp(LARGEST), math.exp(-LARGEST)] * 2)


def test_powers_of_2():
    assert [power_of_2(k) for k in (-1000, -1, 0, 1, 1000)] == [2.0**-1000, 0.5, 1.0, 2.0, 2.0**1000]
