import numpy as np
import pytest
from numba.core.errors import NumbaError

from schemas.compiled.njit import njit_no_refcount
from schemas.compiled.stack_array import stack_array

room = stack_array(np.int64, 4)


def on_the_stack(n):
    few = room()
    few[:] = n
    return few[0] + few[3]


def on_the_heap(n):
    return np.zeros(n)[0]


def test_arrays_may_be_made_on_the_stack_alone():
    assert njit_no_refcount()(on_the_stack)(5) == 10
    with pytest.raises(NumbaError):
        njit_no_refcount()(on_the_heap)(5)
